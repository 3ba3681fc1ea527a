package daemon

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestOwnNames: a page of a stranger's that leads to this host by a name of its own gets nothing.
func TestOwnNames(t *testing.T) {
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	loopback, open := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.TCPAddr{IP: net.IPv4zero}
	for _, c := range []struct {
		addr net.Addr
		host string
		code int
	}{
		{loopback, "127.0.0.1:6782", http.StatusOK},
		{loopback, "[::1]:6782", http.StatusOK},
		{loopback, "localhost", http.StatusOK},
		{loopback, "LOCALHOST.:6782", http.StatusOK},
		{loopback, "attacker.example:6782", http.StatusMisdirectedRequest},
		{loopback, "127.0.0.1.attacker.example", http.StatusMisdirectedRequest},
		{loopback, "", http.StatusMisdirectedRequest},
		{open, "prometheus.example:6782", http.StatusOK},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = c.host
		w := httptest.NewRecorder()
		ownNames(c.addr, ok).ServeHTTP(w, r)
		if w.Code != c.code {
			t.Errorf("%s by %q: %d, want %d", c.addr, c.host, w.Code, c.code)
		}
	}
}

// TestBounded: connections beyond the bound are told so at once, and there is room again when one has closed.
func TestBounded(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newBounded(inner, 1)
	defer l.Close()
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	first := dial()
	defer first.Close()
	held := <-accepted
	second := dial()
	if text, err := io.ReadAll(second); err != nil || string(text) != httpRefuseMsg {
		t.Errorf("one too many: %q, %v", text, err)
	}
	second.Close()
	held.Close()
	held.Close() // twice counts once
	third := dial()
	defer third.Close()
	(<-accepted).Close()
}
