package poll

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxGroup is the most files of a Group.
const maxGroup = 32

// Group is a set of files that are read by one goroutine. One system call finds those that are ready.
type Group struct {
	*File  // an epoll instance: Source is ready while one of the files is
	ask    func(fd uintptr)
	events [maxGroup]unix.EpollEvent
	ready  uint32
	err    error
}

// NewGroup returns the group of files, at most 32. The caller goes on owning the files, and closes them after the group.
func NewGroup(files []*File) (*Group, error) {
	if len(files) > maxGroup {
		return nil, fmt.Errorf("poll: a group of %d files: %d is the most", len(files), maxGroup)
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("poll: %w", err)
	}
	for i, f := range files {
		var failed error
		closed := f.Control(func(member uintptr) {
			failed = unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, int(member), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)})
		})
		err = errors.Join(err, closed, failed)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("poll: a group of files: %w", err)
	}
	const name = "group of files"
	opened := os.NewFile(uintptr(fd), name)
	file, err := Take(opened, name)
	if err != nil {
		opened.Close()
		return nil, err
	}
	g := &Group{File: file}
	g.ask = g.list
	return g, nil
}

// Ready returns which files can be read, or have an error: bit i stands for file i. The error is net.ErrClosed after Close. One goroutine
// may call it.
func (g *Group) Ready() (files uint32, err error) {
	g.ready, g.err = 0, nil
	if err := g.Control(g.ask); err != nil {
		return 0, err
	}
	return g.ready, g.err
}

// list sets ready. The call does not block, so the scheduler need not know of it.
func (g *Group) list(fd uintptr) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&g.events[0])), maxGroup, 0, 0, 0)
		switch errno {
		case 0:
			for i := range int(n) {
				g.ready |= 1 << g.events[i].Fd
			}
			return
		case unix.EINTR:
		default:
			g.err = fmt.Errorf("poll: a group of files: %w", errno)
			return
		}
	}
}
