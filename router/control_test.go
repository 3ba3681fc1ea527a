package router

import (
	"errors"
	"testing"

	"weft/router/wire"
)

// TestControlWithoutASession: a request of a peer may arrive before there is a session for the answer.
func TestControlWithoutASession(t *testing.T) {
	if err := new(Engine).sendControl(&egress{}, wire.Control{}); !errors.Is(err, ErrNoSession) {
		t.Errorf("%v, want ErrNoSession", err)
	}
}
