package apiserver

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

// Bounds of what unauthenticated clients may hold of the HTTP server.
const (
	maxHTTPConns      = 1024
	maxHTTPHeader     = 16 << 10 // bytes
	httpHeaderTimeout = 10 * time.Second
	httpIdleTimeout   = time.Minute
	httpTimeout       = time.Minute // for a request, and for its answer
	httpRefusal       = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)

// requireOwnName protects a server that only this host should reach from DNS rebinding: a page from elsewhere, in a browser of
// this host, with a name that suddenly resolves to 127.0.0.1. It refuses requests for names other than localhost, this host's name, and
// addresses. A server that listens for other hosts too accepts every name: they could reach it anyway.
func requireOwnName(listening net.Addr, h http.Handler) http.Handler {
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
		http.Error(w, fmt.Sprintf("%q is not a name of this host: use an address, localhost or %s", r.Host, host), http.StatusMisdirectedRequest)
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

// limitedListener is a listener that refuses connections, with an answer of HTTP, while too many are open. So a health check fails
// at once instead of waiting behind other clients.
type limitedListener struct {
	net.Listener
	open chan struct{} // holds a token for each open connection
}

func newLimitedListener(l net.Listener, most int) *limitedListener {
	return &limitedListener{l, make(chan struct{}, most)}
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.open <- struct{}{}:
			return &limitedConn{Conn: conn, done: sync.OnceFunc(func() { <-l.open })}, nil
		default:
			_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = conn.Write([]byte(httpRefusal))
			_ = conn.Close()
		}
	}
}

// limitedConn is a connection of a limitedListener.
type limitedConn struct {
	net.Conn
	done func()
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	c.done()
	return c.Conn.Close()
}
