package underlay

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ListenQueues opens n sockets on one port, at least one; each is for a goroutine of its own. The kernel spreads what
// arrives by a hash of addresses and ports (SO_REUSEPORT, socket(7)), so that all that a peer's socket sends stays in
// order in one of them; where one is closed, the rest take over. With port 0 the first picks one. The errors are those of
// Listen.
//
// That a port is shared must not let in strangers. The first socket is bound alone, which fails if anyone has the port,
// be it another group; only then is the port opened for the others. Two daemons that start at once cannot both have it.
// What could still join is a program of the same user that itself asks to share just this port.
func ListenQueues(cfg Config, n int) (_ []*UDP, err error) {
	if n < 1 {
		return nil, fmt.Errorf("underlay: %d queues", n)
	}
	first, err := Listen(cfg)
	if err != nil {
		return nil, err
	}
	queues := []*UDP{first}
	if n == 1 {
		return queues, nil
	}
	defer func() {
		if err != nil {
			for _, u := range queues {
				u.Close()
			}
		}
	}()
	if err := first.share(); err != nil {
		return nil, fmt.Errorf("underlay: UDP port %d: sharing: %w", first.local.Port(), err)
	}
	cfg.Port = first.local.Port()
	for len(queues) < n {
		u, err := listen(cfg, true)
		if err != nil {
			return nil, err
		}
		queues = append(queues, u)
	}
	return queues, nil
}

// share lets other sockets of this user join on the port. The kernel makes the group when the first of them is bound.
func (u *UDP) share() error {
	var err error
	return errors.Join(u.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}), err)
}
