package underlay

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ListenQueues opens n sockets on one port, at least one; each is for a goroutine of its own. The kernel distributes
// the arriving datagrams by a hash of addresses and ports (SO_REUSEPORT, socket(7)), and those of entropy port i to socket
// i (Steering): so all datagrams of a peer's socket arrive at one of them, in order. If one is closed, the others receive
// its datagrams. With port 0 the first socket chooses the port. The errors are those of Listen.
//
// Sockets of other programs must not share the port. The first socket is bound alone, which fails if another socket or
// group has the port; only then is the port opened for the others. So two daemons that start at the same time cannot
// both get it. Only a program of the same user that itself requests to share this port could still join.
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
		return nil, fmt.Errorf("underlay: UDP port %d: share it: %w", first.local.Port(), err)
	}
	cfg.Port = first.local.Port()
	for len(queues) < n {
		u, err := listen(cfg, true)
		if err != nil {
			return nil, err
		}
		queues = append(queues, u)
	}
	if first.steer(n) == nil {
		for _, u := range queues {
			u.features |= Steering
		}
	} // else the kernel is older than Linux 4.5, or a sandbox: the hash stays
	return queues, nil
}

// share allows other sockets of this user on the port. The kernel makes the group when the first of them is bound.
func (u *UDP) share() error {
	var err error
	return errors.Join(u.file.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}), err)
}
