package daemon

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// Bounds of what strangers may hold of the HTTP server.
const (
	maxHTTPConns  = 1024
	httpIdle      = time.Minute
	httpPatience  = time.Minute // for a request, and its answer
	httpHeaders   = 16 << 10    // bytes
	httpHeaderIn  = 10 * time.Second
	httpRefuseMsg = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)

// ownNames keeps DNS rebinding away from a server that only this host should reach: a page of a stranger's, in a browser of this host, whose name
// leads to 127.0.0.1 all of a sudden. What asks by such a name is refused; by an address, by localhost or by this host's own name it may ask. Where
// the server listens for others too, they ask by names of their own choice, and nothing is gained that they could not have anyway.
func ownNames(listening net.Addr, h http.Handler) http.Handler {
	tcp, ok := listening.(*net.TCPAddr)
	if !ok || !tcp.IP.IsLoopback() {
		return h
	}
	host, _ := os.Hostname()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isOwnName(r.Host, host) {
			h.ServeHTTP(w, r)
			return
		}
		http.Error(w, fmt.Sprintf("%q is not a name of this host: ask by address, by localhost or by %s", r.Host, host), http.StatusMisdirectedRequest)
	})
}

// isOwnName reports whether the host part of a Host header is an address, localhost, or hostname.
func isOwnName(header, hostname string) bool {
	name := header
	if host, _, err := net.SplitHostPort(header); err == nil {
		name = host
	}
	name = strings.TrimSuffix(strings.ToLower(strings.Trim(name, "[]")), ".")
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	return name == "localhost" || name != "" && name == strings.ToLower(hostname)
}

// bounded is a listener that turns connections away while as many are open as there may be, and says so. It never makes those wait that are
// open, nor health checks queue behind strangers for ever: they are told to come again.
type bounded struct {
	net.Listener
	open chan struct{} // holds a token for each open connection
}

func newBounded(l net.Listener, most int) *bounded {
	return &bounded{l, make(chan struct{}, most)}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.open <- struct{}{}:
			return &counted{Conn: conn, done: sync.OnceFunc(func() { <-b.open })}, nil
		default:
			_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = conn.Write([]byte(httpRefuseMsg))
			_ = conn.Close()
		}
	}
}

// counted is a connection of a bounded listener.
type counted struct {
	net.Conn
	done func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.done()
	return c.Conn.Close()
}
