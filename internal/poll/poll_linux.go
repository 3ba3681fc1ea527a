package poll

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"runtime"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// File is an open descriptor that is read and written without waiting. Methods may be called concurrently: the descriptor is closed when
// the last of them has returned.
type File struct {
	file    *os.File
	raw     syscall.RawConn
	closing *os.File // an eventfd, readable as soon as Close was called. It lives as long as the pollers that wait for it
	wake    int      // its descriptor
	closed  atomic.Bool
}

// Take takes over the descriptor of an open file or connection, which it closes: from then on the runtime's poller gets no events for it.
// On an error conn stays as it is.
func Take(conn interface {
	syscall.Conn
	io.Closer
}, name string) (*File, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("poll: %s: %w", name, err)
	}
	f := &File{}
	if err := errors.Join(raw.Control(func(fd uintptr) { err = f.adopt(int(fd), name) }), err); err != nil {
		return nil, fmt.Errorf("poll: %s: %w", name, err)
	}
	if err := conn.Close(); err != nil {
		f.file.Close()
		f.closing.Close()
		return nil, fmt.Errorf("poll: %s: %w", name, err)
	}
	return f, nil
}

// adopt opens a descriptor for the same open file as fd.
func (f *File) adopt(fd int, name string) error {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	// os.NewFile passes a descriptor that does not block to the runtime's poller.
	if err := unix.SetNonblock(own, false); err != nil {
		unix.Close(own)
		return err
	}
	f.file = os.NewFile(uintptr(own), name)
	if err := unix.SetNonblock(own, true); err != nil {
		f.file.Close()
		return err
	}
	if f.raw, err = f.file.SyscallConn(); err != nil {
		f.file.Close()
		return err
	}
	if f.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		f.file.Close()
		return err
	}
	f.closing = os.NewFile(uintptr(f.wake), name)
	return nil
}

// Source returns the source of f.
func (f *File) Source() Source { return Source{file: f} }

// Control calls do with the descriptor, which is valid until do returns. The error is net.ErrClosed after Close.
func (f *File) Control(do func(fd uintptr)) error {
	if f.closed.Load() { // Close has woken the caller, and has not closed the file yet
		return net.ErrClosed
	}
	if err := f.raw.Control(do); err != nil {
		if errors.Is(err, os.ErrClosed) || f.closed.Load() {
			return net.ErrClosed
		}
		return err
	}
	return nil
}

// writablePause is the longest time between two tries to write, in milliseconds.
const writablePause = 1

// WaitWritable waits, inside a call of Control, until it is worth to try again to write to a file that was full. It reports false after
// Close.
//
// The kernel reports a socket or a TAP as writable when half of its buffer is free, but takes something as soon as anything is. A loop
// that waited for the former would not receive meanwhile. And it reports a socket as ready at once while that has errors in its queue.
func (f *File) WaitWritable() bool {
	err := f.Control(func(fd uintptr) {
		fds := [2]unix.PollFd{{Fd: int32(f.wake), Events: unix.POLLIN}, {Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(fds[:], writablePause)
		if err == nil && n > 0 && fds[0].Revents == 0 && fds[1].Revents&unix.POLLOUT == 0 {
			_, _ = unix.Poll(fds[:1], writablePause) // only an error: its cause shows at the next try
		}
	})
	runtime.KeepAlive(f)
	return err == nil && !f.closed.Load()
}

// wait waits until f is readable or closed.
func (f *File) wait() error {
	var failed error
	err := f.Control(func(fd uintptr) {
		for {
			fds := [2]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(f.wake), Events: unix.POLLIN}}
			if _, failed = unix.Poll(fds[:], -1); failed != unix.EINTR {
				return
			}
		}
	})
	runtime.KeepAlive(f)
	if errors.Is(err, net.ErrClosed) {
		return nil // a closed source is ready
	}
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("poll: %s: %w", f.file.Name(), err)
	}
	return nil
}

// IsClosed reports whether Close was called.
func (f *File) IsClosed() bool { return f.closed.Load() }

// Close closes f, and wakes all that wait for it. It may be called more than once.
func (f *File) Close() error {
	if f.closed.Swap(true) {
		return nil
	}
	if _, err := unix.Write(f.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		return fmt.Errorf("poll: %s: %w", f.file.Name(), errors.Join(err, f.file.Close()))
	}
	runtime.KeepAlive(f.closing)
	if err := f.file.Close(); err != nil {
		return fmt.Errorf("poll: %s: %w", f.file.Name(), err)
	}
	return nil
}

// New returns a poller of sources, either all of the kernel or all in memory. There must be one.
func New(sources ...Source) (*Poller, error) {
	p := &Poller{}
	for i, s := range sources {
		switch {
		case s.file != nil && (i == 0 || p.kernel != nil):
			if err := p.watch(s.file); err != nil {
				return nil, errors.Join(err, p.Close())
			}
		case s.file == nil && p.kernel == nil:
			p.memory = append(p.memory, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(s.ready)})
		default:
			return nil, errors.Join(errors.New("poll: the sources cannot be waited for together"), p.Close())
		}
	}
	return p, nil
}

// watch adds a descriptor, and the one that shows that it is closed.
func (p *Poller) watch(f *File) error {
	if p.kernel == nil {
		fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return fmt.Errorf("poll: %w", err)
		}
		p.kernel = &epoll{fd: fd}
	}
	p.kernel.files = append(p.kernel.files, f)
	var failed error
	err := f.Control(func(fd uintptr) {
		failed = errors.Join(p.kernel.add(int(fd)), p.kernel.add(f.wake))
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("poll: %s: %w", f.file.Name(), err)
	}
	return nil
}

// epoll is an epoll instance. Its events are level-triggered: a descriptor that was not read to its end is ready again.
type epoll struct {
	fd     int
	files  []*File // keeps them
	events [4]unix.EpollEvent
}

func (e *epoll) add(fd int) error {
	return unix.EpollCtl(e.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (e *epoll) wait() error {
	for {
		if _, err := unix.EpollWait(e.fd, e.events[:], -1); err != unix.EINTR {
			if err != nil {
				return fmt.Errorf("poll: %w", err)
			}
			return nil
		}
	}
}

func (e *epoll) close() error {
	if err := unix.Close(e.fd); err != nil {
		return fmt.Errorf("poll: %w", err)
	}
	return nil
}
