package api

import (
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"weft/internal/hint"
)

// roundTrip is a transport that does not reach the daemon.
type roundTrip func() error

func (f roundTrip) RoundTrip(*http.Request) (*http.Response, error) { return nil, f() }

// TestUserWithoutPermission: the error for an ordinary user says that root is needed, without the words of libraries.
func TestUserWithoutPermission(t *testing.T) {
	c := NewClient("/run/weft/weft.sock")
	c.http.Transport = roundTrip(func() error { return &net.OpError{Op: "dial", Net: "unix", Err: syscall.EACCES} })
	_, err := c.Status(t.Context())
	advice, code := hint.Of(err)
	if err == nil || strings.Contains(err.Error(), "dial") || !strings.Contains(advice, "as root") || code != hint.ExitFailed {
		t.Errorf("%v, hint %q, exit code %d", err, advice, code)
	}
}
