package router

import (
	"errors"
	"testing"

	"weft/router/wire"
)

// TestControlWithoutASession: a peer may ask for something before there is a session by which this node could answer.
func TestControlWithoutASession(t *testing.T) {
	if err := new(Engine).sendControl(&lane{}, wire.Control{}); !errors.Is(err, ErrNoSession) {
		t.Errorf("%v, want ErrNoSession", err)
	}
}
