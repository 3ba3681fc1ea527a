package taptest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"weft/tap"
	"weft/tap/virtio"
)

// patience is how long the suite waits for a frame that must come, much longer than it takes.
const patience = 10 * time.Second

// etherType identifies the suite's own frames (IEEE 802 local experimental 1) among others on a real interface.
const etherType = 0x88b5

// Host is a device under test, with one queue and an MTU of 1,500, and the functions of its other end.
type Host struct {
	Device tap.Device
	// Send sends frame from the host out of the device. It must not allocate.
	Send func(frame []byte) error
	// Receive waits for the next frame that the host receives from the device. It may return frames of other senders.
	Receive func(ctx context.Context) ([]byte, error)
}

// TestDevice checks that the device that open returns keeps the contract of tap.Device and tap.Queue. It calls open for
// every subtest; open closes the device in t.Cleanup.
func TestDevice(t *testing.T, open func(t *testing.T) Host) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, Host)
	}{
		{"Describe", testDescribe},
		{"Read", testRead},
		{"ReadFillsBatch", testReadFillsBatch},
		{"Around", testAround},
		{"Write", testWrite},
		{"WritePieces", testWritePieces},
		{"WriteRefused", testWriteRefused},
		{"Close", testClose},
		{"NoAllocation", testNoAllocation},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, open(t)) })
	}
}

// frame returns the nth frame of the suite, of size bytes.
func frame(n, size int) []byte {
	f := make([]byte, size)
	for i := range f {
		f[i] = byte(n + i)
	}
	copy(f, []byte{0x0a, 0, 0, 0, 0, byte(n), 0x0a, 1, 1, 1, 1, 1})
	binary.BigEndian.PutUint16(f[12:], etherType)
	return f
}

func isOurs(f []byte) bool { return len(f) > 14 && binary.BigEndian.Uint16(f[12:]) == etherType }

func newBatch(frames int) *tap.Batch { return tap.NewBatch(1<<17, frames, 20, 16) }

// Read is ReadFrames that waits for a frame.
func Read(q tap.Queue, b *tap.Batch) (n int, err error) {
	for {
		if n, err = q.ReadFrames(b); n > 0 || err != nil {
			return n, err
		}
		if err := q.Source().Wait(); err != nil {
			return 0, err
		}
	}
}

// read returns the next want frames of the suite that arrive on the only queue, in order.
func read(t *testing.T, h Host, b *tap.Batch, want int) (frames [][]byte) {
	t.Helper()
	watch := time.AfterFunc(patience, func() { h.Device.Close() })
	defer watch.Stop()
	for len(frames) < want {
		b.Reset()
		n, err := Read(h.Device.Queues()[0], b)
		if err != nil {
			t.Fatalf("after %d of %d frames: %v", len(frames), want, err)
		}
		if n != len(b.Frames()) || n == 0 {
			t.Fatalf("ReadFrames = %d, but %d frames are in the batch", n, len(b.Frames()))
		}
		for _, f := range b.Frames() {
			if !isOurs(f.Data) {
				continue
			}
			if !f.Offload.IsPlain() {
				t.Errorf("a plain frame comes with %+v", f.Offload)
			}
			frames = append(frames, bytes.Clone(f.Data))
		}
	}
	return frames
}

// receive returns the next want frames of the suite that the host receives.
func receive(t *testing.T, h Host, want int) (frames [][]byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for len(frames) < want {
		f, err := h.Receive(ctx)
		if err != nil {
			t.Fatalf("after %d of %d frames: %v", len(frames), want, err)
		}
		if isOurs(f) {
			frames = append(frames, f)
		}
	}
	return frames
}

func send(t *testing.T, h Host, frames ...[]byte) {
	t.Helper()
	for _, f := range frames {
		if err := h.Send(f); err != nil {
			t.Fatal(err)
		}
	}
}

func equal(t *testing.T, got, want [][]byte) {
	t.Helper()
	if !slices.EqualFunc(got, want, bytes.Equal) {
		t.Fatalf("frames differ\n got %x\nwant %x", got, want)
	}
}

func testDescribe(t *testing.T, h Host) {
	if h.Device.Name() == "" {
		t.Error("no name")
	}
	if mtu, err := h.Device.MTU(); err != nil || mtu != 1500 {
		t.Errorf("MTU = %d, %v; want 1500", mtu, err)
	}
	if first, again := h.Device.Queues(), h.Device.Queues(); len(first) != 1 || first[0] != again[0] {
		t.Error("Queues are not one and the same")
	}
}

func testRead(t *testing.T, h Host) {
	b := newBatch(16)
	for n, size := range []int{60, 61, 1514} {
		send(t, h, frame(n, size))
		equal(t, read(t, h, b, 1), [][]byte{frame(n, size)})
	}
}

// testReadFillsBatch: no frame is lost or reordered if more frames wait than fit into a batch, which shows that.
func testReadFillsBatch(t *testing.T, h Host) {
	var want [][]byte
	for n := range 7 {
		want = append(want, frame(n, 60+n))
	}
	send(t, h, want...)
	b, q := newBatch(3), h.Device.Queues()[0]
	first := read(t, h, b, 3)
	if b.Waiting() == 0 {
		t.Error("no flow queue has frames waiting, although the batch is full")
	}
	equal(t, append(first, read(t, h, b, len(want)-len(first))...), want)
	for n := 1; n > 0; { // perhaps frames of the host
		b.Reset()
		var err error
		if n, err = q.ReadFrames(b); err != nil {
			t.Fatal(err)
		}
	}
	if b.Waiting() != 0 {
		t.Errorf("flow queues %b have frames waiting, although none can be read", b.Waiting())
	}
}

// testAround: the caller may write to the headroom and tailroom of a frame without a change of other frames.
func testAround(t *testing.T, h Host) {
	send(t, h, frame(0, 60), frame(1, 1514), frame(2, 60))
	b := newBatch(16)
	watch := time.AfterFunc(patience, func() { h.Device.Close() })
	defer watch.Stop()
	for len(b.Frames()) < 3 {
		if _, err := Read(h.Device.Queues()[0], b); err != nil {
			t.Fatal(err)
		}
	}
	var got [][]byte
	for i, f := range b.Frames() {
		around := b.Around(i)
		if len(around) != b.Headroom()+len(f.Data)+16 {
			t.Fatalf("%d bytes around a frame of %d", len(around), len(f.Data))
		}
		clear(around[:b.Headroom()])
		clear(around[len(around)-16:])
	}
	for _, f := range b.Frames() {
		if isOurs(f.Data) {
			got = append(got, f.Data)
		}
	}
	equal(t, got, [][]byte{frame(0, 60), frame(1, 1514), frame(2, 60)})
}

func testWrite(t *testing.T, h Host) {
	var frames []tap.Frame
	var want [][]byte
	for n := range 20 {
		want = append(want, frame(n, 60+60*n))
		frames = append(frames, tap.Frame{Data: frame(n, 60+60*n)})
	}
	if n, err := h.Device.Queues()[0].WriteFrames(frames); n != len(frames) || err != nil {
		t.Fatalf("WriteFrames = %d, %v", n, err)
	}
	equal(t, receive(t, h, len(want)), want)
	if n, err := h.Device.Queues()[0].WriteFrames(nil); n != 0 || err != nil {
		t.Fatalf("WriteFrames(nil) = %d, %v", n, err)
	}
}

// testWriteRefused: a refused frame does not affect others.
func testWriteRefused(t *testing.T, h Host) {
	n, err := h.Device.Queues()[0].WriteFrames([]tap.Frame{
		{Data: frame(0, 60)}, {Data: frame(1, 60)[:13]}, {}, {Data: frame(2, 60)},
	})
	if n != 2 || !errors.Is(err, tap.ErrFrame) {
		t.Fatalf("WriteFrames = %d, %v; want 2 and ErrFrame", n, err)
	}
	equal(t, receive(t, h, 2), [][]byte{frame(0, 60), frame(2, 60)})
}

// testWritePieces: a frame in pieces arrives as one frame.
func testWritePieces(t *testing.T, h Host) {
	f := frame(3, 1200)
	frames := []tap.Frame{
		{Data: f[:14], More: [][]byte{f[14:15], nil, f[15:700], f[700:]}},
		{Data: f[:600], More: [][]byte{f[600:]}},
		{Data: f},
	}
	if n, err := h.Device.Queues()[0].WriteFrames(frames); n != len(frames) || err != nil {
		t.Fatalf("WriteFrames = %d, %v", n, err)
	}
	equal(t, receive(t, h, len(frames)), [][]byte{f, f, f})
	many := tap.Frame{Data: f, More: make([][]byte, tap.MaxPieces+1)}
	if n, err := h.Device.Queues()[0].WriteFrames([]tap.Frame{many}); n != 0 || !errors.Is(err, tap.ErrFrame) {
		t.Errorf("too many pieces: %d, %v; want ErrFrame", n, err)
	}
}

func testClose(t *testing.T, h Host) {
	q := h.Device.Queues()[0]
	ended := make(chan error)
	go func() {
		b := newBatch(16)
		for {
			b.Reset()
			if _, err := Read(q, b); err != nil {
				ended <- err
				return
			}
		}
	}()
	if err := h.Device.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a waiting ReadFrames ends with %v", err)
	}
	if _, err := Read(q, newBatch(16)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadFrames after Close: %v", err)
	}
	if _, err := q.WriteFrames([]tap.Frame{{Data: frame(0, 60)}}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("WriteFrames after Close: %v", err)
	}
	if err := h.Device.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func testNoAllocation(t *testing.T, h Host) {
	q, b, f := h.Device.Queues()[0], newBatch(16), frame(0, 60)
	if n := testing.AllocsPerRun(100, func() {
		b.Reset()
		if err := h.Send(f); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(q, b); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations to read a frame", n)
	}
	frames := []tap.Frame{{Data: f}, {Offload: virtio.Header{}, Data: f}}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := q.WriteFrames(frames); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations to write two frames", n)
	}
}
