package apiserver

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"
)

// TestDNSRebinding: a page from elsewhere, with a name that resolves to this host, gets nothing.
func TestDNSRebinding(t *testing.T) {
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
		requireOwnName(c.addr, ok).ServeHTTP(w, r)
		if w.Code != c.code {
			t.Errorf("%s by %q: %d, want %d", c.addr, c.host, w.Code, c.code)
		}
	}
}

// TestConnectionLimit: connections above the limit are refused at once, and one is accepted again when another has closed.
func TestConnectionLimit(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newLimitedListener(inner, 1)
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
	if text, err := io.ReadAll(second); err != nil || string(text) != httpRefusal {
		t.Errorf("one too many: %q, %v", text, err)
	}
	second.Close()
	held.Close()
	held.Close() // twice counts once
	third := dial()
	defer third.Close()
	(<-accepted).Close()
}

// TestTimeouts: a connection ends if its request is incomplete or its answer is not read.
func TestTimeouts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	ended := make(chan error, 1)
	go func() {
		done <- serve(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/endless" {
				return
			}
			var err error
			for piece := make([]byte, 1<<16); err == nil; {
				_, err = w.Write(piece)
			}
			ended <- err
		}), 100*time.Millisecond)
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	ask := func(head string) net.Conn {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, head+"\r\nHost: localhost\r\n"); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	deaf := ask("GET /endless HTTP/1.1")
	defer deaf.Close()
	if _, err := io.WriteString(deaf, "\r\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("an answer that the client does not read is still being written")
	}
	silent := ask("GET / HTTP/1.1\r\nContent-Length: 5")
	defer silent.Close()
	if _, err := io.WriteString(silent, "\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := silent.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(silent); err != nil {
		t.Errorf("a request without its body: %v", err)
	}
}
