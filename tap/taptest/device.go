// Package taptest is the host side of the datapath for tests: a tap.Device in memory, the conformance suite that it and
// the kernel's devices pass, and network namespaces for tests that need a kernel.
package taptest

import (
	"context"
	"fmt"
	"net"
	"sync"

	"weft/internal/ether"
	"weft/internal/poll"
	"weft/internal/signal"
	"weft/tap"
	"weft/tap/virtio"
)

// depth is the most frames that a Device holds in each direction and queue, as the ring of a TAP does; further frames
// are lost.
const depth = 512

// Config describes a Device in memory; zero fields stand for their defaults.
type Config struct {
	Name   string // weft0
	MTU    int    // bytes, 1,500
	Queues int    // 1
	// Features are the offloads of the device, none by default. The device does not enforce them.
	Features virtio.Features
}

var _ tap.Device = (*Device)(nil)

// Device is a tap.Device with the test as its host: Inject sends a frame as the bridge would, Next returns a frame that
// the bridge would receive. All methods may be called from any goroutine, and under testing/synctest.
type Device struct {
	name   string
	mtu    int
	offers virtio.Features
	queues []tap.Queue
	in     []*ring // for each queue: host to process
	out    *ring   // process to host
	close  func()
}

// New returns a device; it need not be closed.
func New(cfg Config) *Device {
	if cfg.Name == "" {
		cfg.Name = "weft0"
	}
	if cfg.MTU == 0 {
		cfg.MTU = 1500
	}
	closed := make(chan struct{})
	d := &Device{name: cfg.Name, mtu: cfg.MTU, offers: cfg.Features, out: newRing(closed)}
	d.close = sync.OnceFunc(func() {
		close(closed)
		for _, in := range d.in {
			in.ready.Set()
		}
	})
	for range max(cfg.Queues, 1) {
		in := newRing(closed)
		d.in = append(d.in, in)
		d.queues = append(d.queues, &queue{device: d, in: in})
	}
	return d
}

// Inject sends a copy of frame from the host to the first queue. It returns false if the ring is full, and the frame
// lost.
func (d *Device) Inject(frame []byte) bool { return d.InjectQueue(0, tap.Frame{Data: frame}) }

// InjectQueue is Inject for one queue and with offload metadata.
func (d *Device) InjectQueue(queue int, frame tap.Frame) bool { return d.in[queue].put(frame) }

// Next waits for the next frame that the process wrote to any queue, and returns it; the caller owns it. The error is
// that of ctx, or net.ErrClosed if the device is closed and empty.
func (d *Device) Next(ctx context.Context) (tap.Frame, error) {
	for {
		if f, ok := d.out.take(); ok {
			return f, nil
		}
		if err := d.out.wait(ctx.Done()); err != nil {
			return tap.Frame{}, err
		}
		if err := ctx.Err(); err != nil {
			return tap.Frame{}, err
		}
	}
}

// TryNext is Next without waiting.
func (d *Device) TryNext() (frame tap.Frame, ok bool) { return d.out.take() }

// Discard drops the frames that the process wrote, without allocating, and returns their number.
func (d *Device) Discard() int { return d.out.discard() }

// Name implements tap.Device.
func (d *Device) Name() string { return d.name }

// MTU implements tap.Device.
func (d *Device) MTU() (int, error) { return d.mtu, nil }

// Features implements tap.Device.
func (d *Device) Features() virtio.Features { return d.offers }

// Queues implements tap.Device.
func (d *Device) Queues() []tap.Queue { return d.queues }

// Close implements tap.Device.
func (d *Device) Close() error {
	d.close()
	return nil
}

// queue is one queue of a Device.
type queue struct {
	device *Device
	in     *ring
}

// ReadFrames implements tap.Queue.
func (q *queue) ReadFrames(b *tap.Batch) (int, error) {
	if q.in.isClosed() {
		return 0, net.ErrClosed
	}
	return q.in.fill(b), nil
}

// Source implements tap.Queue.
func (q *queue) Source() poll.Source { return poll.FromChan(q.in.ready.C()) }

// WriteFrames implements tap.Queue. A frame that is lost because the ring is full counts as written, as in the kernel.
func (q *queue) WriteFrames(frames []tap.Frame) (n int, err error) {
	if q.in.isClosed() {
		return 0, net.ErrClosed
	}
	for i := range frames {
		if len(frames[i].Data) < ether.HeaderLen || len(frames[i].More) > tap.MaxPieces {
			if err == nil {
				err = fmt.Errorf("%w: %s: %d bytes", tap.ErrFrame, q.device.name, len(frames[i].Data))
			}
			continue
		}
		q.device.out.put(frames[i])
		n++
	}
	return n, err
}

// ring holds up to depth frames; it reuses its memory, for tests that count allocations.
type ring struct {
	closed chan struct{}
	ready  signal.Chan // set while there may be frames

	mu    sync.Mutex
	slots [depth]slot
	first int
	n     int
}

type slot struct {
	offload virtio.Header
	data    []byte
}

func newRing(closed chan struct{}) *ring {
	const each = 256 // bytes for a start: a slot grows with the first long frame in it
	r := &ring{closed: closed, ready: signal.New()}
	slab := make([]byte, depth*each)
	for i := range r.slots {
		r.slots[i].data = slab[i*each : i*each : (i+1)*each]
	}
	return r
}

func (r *ring) isClosed() bool {
	select {
	case <-r.closed:
		return true
	default:
		return false
	}
}

func (r *ring) put(f tap.Frame) bool {
	r.mu.Lock()
	full := r.n == depth
	if !full {
		s := &r.slots[(r.first+r.n)%depth]
		s.offload, s.data = f.Offload, append(s.data[:0], f.Data...)
		for _, piece := range f.More {
			s.data = append(s.data, piece...)
		}
		r.n++
	}
	r.mu.Unlock()
	r.ready.Set()
	return !full
}

func (r *ring) take() (f tap.Frame, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n == 0 {
		return tap.Frame{}, false
	}
	s := &r.slots[r.first]
	f = tap.Frame{Offload: s.offload, Data: append([]byte(nil), s.data...)}
	r.drop(1)
	return f, true
}

func (r *ring) discard() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.n
	r.drop(n)
	return n
}

// fill moves frames to b, as many as fit.
func (r *ring) fill(b *tap.Batch) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for ; r.n > 0; n++ {
		space := b.Space(0, tap.MaxFrame)
		if space == nil {
			r.ready.Set()
			b.SetWaiting(1)
			break
		}
		s := &r.slots[r.first]
		b.Append(0, s.offload, copy(space, s.data))
		r.drop(1)
	}
	return n
}

// drop removes the first n frames. An empty ring starts from its first slot again, so that few slots have to grow.
func (r *ring) drop(n int) {
	r.first, r.n = (r.first+n)%depth, r.n-n
	if r.n == 0 {
		r.first = 0
	}
}

// wait returns when there may be frames, or done is closed, or, with net.ErrClosed, the ring.
func (r *ring) wait(done <-chan struct{}) error {
	select {
	case <-r.ready.C():
		return nil
	case <-done:
		return nil
	case <-r.closed:
		return net.ErrClosed
	}
}
