package memberlog

import (
	"errors"
	"net/netip"
	"strings"
)

// JoinError returns the reason of an error of memberlist's Join by one address, nil for nil: Join returns a list with one error, the
// text of which begins with the address (memberlist.go, v0.7.0).
func JoinError(err error, addr netip.AddrPort) error {
	type list interface {
		error
		WrappedErrors() []error
	}
	if l, ok := errors.AsType[list](err); ok && len(l.WrappedErrors()) == 1 {
		err = l.WrappedErrors()[0]
	}
	if err != nil {
		if reason, ok := strings.CutPrefix(err.Error(), "failed to join "+addr.String()+": "); ok {
			return errors.New(reason)
		}
	}
	return err
}
