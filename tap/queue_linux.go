package tap

import (
	"errors"
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/flowhash"
	"weft/internal/poll"
	"weft/tap/fairqueue"
	"weft/tap/virtio"
)

// errBatch is an error of the caller: its Batch has no space for a frame even when it is empty.
var errBatch = errors.New("tap: the batch has no space for a frame")

// queue is one queue of a TAP: a descriptor for each flow queue. The reader owns in, the writer owns out; the rest is constant.
type queue struct {
	// Constant after newQueue.
	device *device
	flows  []*poll.File
	group  *poll.Group // of flows
	vnet   int         // length of the header before each frame: virtio.HeaderLen or 0

	places places

	in  reader
	out writer
}

// reader is the state of ReadFrames. It is a field so that the function is made only once.
type reader struct {
	read  func(fd uintptr)
	turns *fairqueue.Scheduler // of the flow queues
	flow  int                  // the flow queue that is read
	batch *Batch
	full  bool
	n     int
	// failed counts the frames of one call that could not be read.
	failed int
	err    error
}

// maxFailed is the most unreadable frames of one call; with more the device counts as broken.
const maxFailed = 64

// writer is the state of WriteFrames.
type writer struct {
	write  func(fd uintptr)
	frames []Frame // still to write
	flow   int     // the flow queue of the first of them
	wanted uint32  // flow queues that frames of this call belong to
	full   uint32  // those of them that take no more frames of this call
	waits  int     // of this call, for full flow queues
	slow   uint32  // flow queues that were full when frames for them were written last: no call waits for these
	n      int     // written
	err    error   // of the first refused frame
	fatal  error
	used   int // the most used elements of iov since the last clear, which drops references to frames
	header [virtio.HeaderLen]byte
	iov    [maxIov]unix.Iovec
}

// maxIov is the most pieces of one call, UIO_MAXIOV: the header, Data and More of a frame.
const maxIov = MaxPieces + 2

// newQueue returns a queue, which owns flows. On an error the caller goes on owning them.
func newQueue(d *device, flows []*poll.File, vnet int) (*queue, error) {
	group, err := poll.NewGroup(flows)
	if err != nil {
		return nil, err
	}
	q := &queue{device: d, flows: flows, group: group, vnet: vnet}
	q.in.read, q.out.write = q.read, q.write
	q.in.turns = fairqueue.New(len(flows), quantum)
	return q, nil
}

// close closes the descriptors.
func (q *queue) close() error {
	err := q.group.Close()
	for _, f := range q.flows {
		err = errors.Join(err, f.Close())
	}
	return err
}

// Source implements Queue.
func (q *queue) Source() poll.Source { return q.group.Source() }

// What a flow queue may give in its turn, and what a frame costs besides its bytes: small ones take as long as that many. In bytes.
const (
	quantum   = 64 << 10
	frameCost = 512
)

// ReadFrames implements Queue.
func (q *queue) ReadFrames(b *Batch) (int, error) {
	in := &q.in
	in.batch, in.n, in.err, in.failed, in.full = b, 0, nil, 0, false
	filled, err := q.group.Ready()
	in.turns.Filled(filled)
	for err == nil && in.err == nil && !in.full {
		var ok bool
		if in.flow, ok = in.turns.Next(); !ok {
			break
		}
		err = q.flows[in.flow].Control(in.read)
	}
	in.batch = nil
	if in.full && err == nil {
		filled, err = q.group.Ready()
		b.SetWaiting(filled)
	}
	switch {
	case in.n > 0:
		return in.n, nil // a persistent error occurs again in the next call
	case q.device.closed.Load():
		return 0, net.ErrClosed
	case err != nil:
		return 0, q.gone("read", err)
	case in.err != nil:
		return 0, q.explain("read", in.err)
	}
	return 0, nil
}

// read reads frames of a flow queue until there is none left, its turn is over, or the batch is full. Its system call and that of writeOne
// never block, so the scheduler need not know of them (RawSyscall); docs/adr/0045-one-loop-a-queue.md has what that saves.
func (q *queue) read(fd uintptr) {
	in := &q.in
	for in.turns.MayGive(in.flow) {
		space := in.batch.Space(q.vnet, MaxFrame)
		if space == nil {
			if in.full = true; len(in.batch.Frames()) == 0 {
				in.err = errBatch
			}
			return
		}
		r, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&space[0])), uintptr(len(space)))
		n := int(r)
		switch {
		case errno == unix.EAGAIN:
			in.turns.Emptied(in.flow)
			return
		case errno == unix.EINTR:
			continue
		case errno == unix.EINVAL && in.failed < maxFailed:
			in.failed++ // a superframe that the driver cannot describe, and has dropped
			continue
		case errno != 0:
			in.err = errno
			return
		case n <= q.vnet:
			continue
		}
		var offload virtio.Header
		if q.vnet > 0 {
			offload, _, _ = virtio.Parse(space) // space is longer than a header
		}
		in.turns.Took(in.flow, n+frameCost)
		if frame := space[q.vnet:n]; len(frame) >= ether.HeaderLen && len(q.flows) > 1 {
			q.places.note(flowhash.Of(frame), in.flow)
		}
		in.batch.Append(in.flow, offload, n-q.vnet)
		in.n++
	}
}

// WriteFrames implements Queue.
func (q *queue) WriteFrames(frames []Frame) (int, error) {
	out := &q.out
	out.wanted, out.full, out.waits, out.n, out.err, out.fatal = 0, 0, 0, 0, nil, nil
	q.turnTo(frames)
	var err error
	for len(out.frames) > 0 && err == nil && out.fatal == nil {
		err = q.flows[out.flow].Control(out.write)
	}
	out.frames = nil
	out.slow = out.slow&^out.wanted | out.full
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

// turnTo makes frames those that are still to write.
func (q *queue) turnTo(frames []Frame) {
	if q.out.frames = frames; len(frames) > 0 {
		q.out.flow = q.flowOf(&frames[0])
	}
}

// flowSalt makes flow queues independent of the ports of the underlay, which depend on the flow as well.
const flowSalt = 1

// flowOf returns the flow queue to which a frame is written: that from which its flow was read, else one for all frames of the flow, where
// the kernel then puts the answers.
func (q *queue) flowOf(f *Frame) int {
	if len(f.Data) < ether.HeaderLen || len(q.flows) == 1 {
		return 0
	}
	flow := flowhash.Of(f.Data)
	if i, ok := q.places.find(flow); ok {
		return i
	}
	return flow.Index(len(q.flows), flowSalt)
}

// maxWaits is how often a call waits for full flow queues, about a millisecond each time: on all of them together, as a pod with many
// flows may fill several.
const maxWaits = 10

// write writes the next frames of one flow queue. While too many are in flight there it waits until the host has taken some. If it takes
// too few for a while, because a pod or its limit of rate is slow, the rest is refused, also in later calls: other pods must not wait for
// that.
func (q *queue) write(fd uintptr) {
	out := &q.out
	flow := out.flow
	bit := uint32(1) << flow
	out.wanted |= bit
	for len(out.frames) > 0 && out.flow == flow {
		if out.full&bit != 0 {
			q.turnTo(out.frames[1:])
			continue
		}
		errno := q.writeOne(fd, &out.frames[0])
		switch errno {
		case 0:
			out.n++
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			if out.slow&bit == 0 && out.waits < maxWaits {
				out.waits++
				if !q.flows[flow].WaitWritable() {
					return
				}
				continue
			}
			out.full |= bit
			if out.err == nil {
				out.err = fmt.Errorf("%w: %s: the host takes no more frames", ErrFrame, q.device.name)
			}
		case unix.EBADFD, unix.EBADF:
			out.fatal = errno
			return
		default:
			if out.err == nil {
				out.err = fmt.Errorf("%w: %s: %d bytes: %w", ErrFrame, q.device.name, len(out.frames[0].Data), errno)
			}
		}
		q.turnTo(out.frames[1:])
	}
}

// writeOne writes one frame, with the virtio-net header before it if the TAP has one.
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
	_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
	return errno
}

// set makes b the piece i of the next write.
func (w *writer) set(i int, b []byte) {
	w.iov[i].Base = &b[0]
	w.iov[i].SetLen(len(b))
}

// explain wraps an error of a system call.
func (q *queue) explain(verb string, err error) error {
	if errors.Is(err, unix.EBADFD) {
		return q.gone(verb, err)
	}
	return fmt.Errorf("tap: %s: %s: %w", q.device.name, verb, err)
}

// gone returns the error for an open descriptor that became invalid: the kernel detaches it when its interface is
// deleted, and wakes its poller.
func (q *queue) gone(verb string, err error) error {
	return fmt.Errorf("tap: %s: %s: the interface was deleted: %w", q.device.name, verb, err)
}
