package netdump

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestRepeat(t *testing.T) {
	failed := errors.New("no such device")
	for name, c := range map[string]struct {
		interrupted int // dumps before the last one
		last        error
		want        error
		calls       int
	}{
		"at once":            {0, nil, nil, 1},
		"after some":         {7, nil, nil, 8},
		"another error":      {2, failed, failed, 3},
		"without end":        {attempts, nil, ErrInterrupted, attempts},
		"one before the end": {attempts - 1, nil, nil, attempts},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			got, err := Repeat(func() (int, error) {
				calls++
				if calls <= c.interrupted {
					return -1, fmt.Errorf("list: %w", netlink.ErrDumpInterrupted)
				}
				return calls, c.last
			})
			if !errors.Is(err, c.want) || calls != c.calls {
				t.Errorf("%v after %d calls, want %v after %d", err, calls, c.want, c.calls)
			}
			if c.want == nil && got != c.calls || errors.Is(c.want, ErrInterrupted) && got != 0 {
				t.Errorf("result %d", got)
			}
		})
	}
}
