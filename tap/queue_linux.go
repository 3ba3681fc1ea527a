package tap

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/tap/virtio"
)

// errBatch is a mistake of the caller's: its Batch could not take one frame even when empty.
var errBatch = errors.New("tap: the batch has no room for a frame")

// queue is one descriptor of a TAP. The reader owns in, the writer out: they share nothing that changes.
type queue struct {
	// Constant after newQueue.
	device *device
	file   *os.File
	raw    syscall.RawConn
	vnet   int // length of the header before each frame: virtio.HeaderLen or 0

	in  reader
	out writer
}

// reader is the state of ReadFrames. It is a field so that the function the poller calls is made only once.
type reader struct {
	poll  func(fd uintptr) bool
	batch *Batch
	n     int
	// failed counts the frames that could not be read, in one call.
	failed int
	err    error
}

// maxFailed is how many frames in one call may be unreadable before the device is taken to be broken.
const maxFailed = 64

// writer is the state of WriteFrames.
type writer struct {
	poll   func(fd uintptr) bool
	frames []Frame // still to write
	n      int     // written
	err    error   // the first refusal
	fatal  error
	used   int // of iov, at most, since the last clear: so that no frame is kept alive
	header [virtio.HeaderLen]byte
	iov    [maxIov]unix.Iovec
}

// maxIov is how many pieces the kernel takes in one call, UIO_MAXIOV: the header, Data and More of a frame.
const maxIov = MaxPieces + 2

func newQueue(d *device, file *os.File, vnet int) (*queue, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	q := &queue{device: d, file: file, raw: raw, vnet: vnet}
	q.in.poll, q.out.poll = q.read, q.write
	return q, nil
}

// ReadFrames implements Queue. The goroutine sleeps in the runtime's poller, not in a thread of its own.
func (q *queue) ReadFrames(b *Batch) (int, error) {
	q.in.batch, q.in.n, q.in.err, q.in.failed = b, 0, nil, 0
	err := q.raw.Read(q.in.poll)
	q.in.batch = nil
	switch {
	case q.in.n > 0:
		return q.in.n, nil // an error that stays is there again at the next call
	case q.device.closed.Load():
		return 0, net.ErrClosed
	case err != nil:
		return 0, q.gone("read", err)
	}
	return 0, q.explain("read", q.in.err)
}

// read takes frames until there is none left or the batch is full. It returns false to be called again once the
// descriptor is readable.
func (q *queue) read(fd uintptr) (done bool) {
	in := &q.in
	for {
		space := in.batch.Space(q.vnet, MaxFrame)
		if space == nil {
			if len(in.batch.Frames()) == 0 {
				in.err = errBatch
			}
			return true
		}
		n, err := unix.Read(int(fd), space)
		switch {
		case err == unix.EAGAIN:
			return in.n > 0
		case err == unix.EINTR:
			continue
		case err == unix.EINVAL && in.failed < maxFailed:
			in.failed++ // a superframe that the driver has no words for; it has thrown it away
			continue
		case err != nil:
			in.err = err
			return true
		case n <= q.vnet:
			continue
		}
		var offload virtio.Header
		if q.vnet > 0 {
			offload, _, _ = virtio.Parse(space) // space is longer than a header
		}
		in.batch.Append(offload, n-q.vnet)
		in.n++
	}
}

// WriteFrames implements Queue.
func (q *queue) WriteFrames(frames []Frame) (int, error) {
	out := &q.out
	out.frames, out.n, out.err, out.fatal = frames, 0, nil, nil
	err := q.raw.Write(out.poll)
	out.frames = nil
	clear(out.iov[:out.used])
	out.used = 0
	switch {
	case q.device.closed.Load():
		return out.n, net.ErrClosed
	case err != nil:
		return out.n, q.gone("write", err)
	case out.fatal != nil:
		return out.n, q.explain("write", out.fatal)
	}
	return out.n, out.err
}

// write hands over what is left of the frames. It returns false to be called again once the descriptor is writable.
func (q *queue) write(fd uintptr) (done bool) {
	out := &q.out
	for len(out.frames) > 0 {
		errno := q.writeOne(fd, &out.frames[0])
		switch errno {
		case 0:
			out.n++
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			if !isWritable(fd) {
				return false
			}
			continue
		case unix.EBADFD, unix.EBADF:
			out.fatal = errno
			return true
		default:
			if out.err == nil {
				out.err = fmt.Errorf("%w: %s: %d bytes: %w", ErrFrame, q.device.name, len(out.frames[0].Data), errno)
			}
		}
		out.frames = out.frames[1:]
	}
	return true
}

// isWritable asks the driver itself, once it has refused a frame as too many are under way. The driver wakes only those who
// have asked since, and the runtime's poller, which waits for changes (edge-triggered), asked long before: it would wait for
// a change that nobody reports.
func isWritable(fd uintptr) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(fds[:], 0)
	return err == nil && n > 0 && fds[0].Revents&unix.POLLOUT != 0
}

// writeOne writes one frame, with its header before it where the TAP has one.
func (q *queue) writeOne(fd uintptr, f *Frame) unix.Errno {
	if len(f.Data) < ether.HeaderLen || len(f.More) > MaxPieces {
		return unix.EINVAL
	}
	out := &q.out
	out.set(1, f.Data)
	n := 2
	for _, piece := range f.More {
		if len(piece) > 0 {
			out.set(n, piece)
			n++
		}
	}
	out.used = max(out.used, n)
	iov := out.iov[:n]
	if q.vnet == 0 {
		if !f.Offload.IsPlain() {
			return unix.EOPNOTSUPP
		}
		iov = iov[1:]
	} else {
		f.Offload.Put(out.header[:])
		out.set(0, out.header[:])
	}
	_, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
	return errno
}

// set makes b the piece i of what is written next.
func (w *writer) set(i int, b []byte) {
	w.iov[i].Base = &b[0]
	w.iov[i].SetLen(len(b))
}

// explain says what an error of a system call means.
func (q *queue) explain(verb string, err error) error {
	if errors.Is(err, unix.EBADFD) {
		return q.gone(verb, err)
	}
	return fmt.Errorf("tap: %s: %s: %w", q.device.name, verb, err)
}

// gone says what it means that a descriptor nobody has closed is no longer good: the kernel lets go of it when its
// interface is deleted, and whoever waits in the poller hears of that from there.
func (q *queue) gone(verb string, err error) error {
	return fmt.Errorf("tap: %s: %s: somebody has deleted the interface: %w", q.device.name, verb, err)
}
