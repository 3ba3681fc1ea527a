// Package underlaytest holds the conformance suite of underlay.Conn.
package underlaytest

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"weft/router/underlay"
)

// patience is how long the suite waits for a datagram that must come, much longer than it takes.
const patience = 10 * time.Second

// Pair is two sockets that reach each other without loss, and their addresses.
type Pair struct {
	A, B         underlay.Conn
	AddrA, AddrB netip.AddrPort
}

// TestConn checks that the sockets that open returns keep the contract of underlay.Conn. It calls open for every
// subtest; open closes the sockets in t.Cleanup.
func TestConn(t *testing.T, open func(t *testing.T) Pair) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, Pair)
	}{
		{"BothWays", testBothWays},
		{"LongBatch", testLongBatch},
		{"Sizes", testSizes},
		{"Segments", testSegments},
		{"Superframe", testSuperframe},
		{"TinySegments", testTinySegments},
		{"LargestSegments", testLargestSegments},
		{"Pieces", testPieces},
		{"MixedSizes", testMixedSizes},
		{"Empty", testEmpty},
		{"Peers", testPeers},
		{"TOS", testTOS},
		{"FailingElements", testFailingElements},
		{"Truncated", testTruncated},
		{"Writers", testWriters},
		{"Close", testClose},
		{"NoAllocation", testNoAllocation},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, open(t)) })
	}
}

// payload returns the nth datagram of the suite, of size bytes.
func payload(n, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(n + i)
	}
	return b
}

// newBatch returns n elements with empty buffers of size bytes of capacity, which is what ReadBatch uses.
func newBatch(n, size int) []underlay.Datagram {
	batch := make([]underlay.Datagram, n)
	for i := range batch {
		batch[i].Buf = make([]byte, 0, size)
	}
	return batch
}

// Read is ReadBatch that waits for a datagram.
func Read(c underlay.Conn, batch []underlay.Datagram) (n int, err error) {
	for {
		if n, err = c.ReadBatch(batch); n > 0 || err != nil {
			return n, err
		}
		if err := c.Source().Wait(); err != nil {
			return 0, err
		}
	}
}

// receive returns copies of the next want datagrams that c receives, with merged ones split.
func receive(t *testing.T, c underlay.Conn, want int) (got []underlay.Datagram) {
	t.Helper()
	watch := time.AfterFunc(patience, func() { c.Close() })
	defer watch.Stop()
	batch := newBatch(8, 1<<16)
	for len(got) < want {
		n, err := Read(c, batch)
		if err != nil {
			t.Fatalf("after %d of %d datagrams: %v", len(got), want, err)
		}
		if n == 0 {
			t.Fatal("ReadBatch returns nothing and no error")
		}
		for _, d := range batch[:n] {
			got = append(got, split(t, d)...)
		}
	}
	if len(got) > want {
		t.Fatalf("got %d datagrams, want %d", len(got), want)
	}
	return got
}

// split returns copies of the datagrams in a received element.
func split(t *testing.T, d underlay.Datagram) (got []underlay.Datagram) {
	t.Helper()
	rest, size := bytes.Clone(d.Buf), d.SegmentSize
	switch {
	case size == 0:
		size = len(rest)
	case size < 0 || size >= len(rest):
		t.Fatalf("%d bytes are said to be several datagrams of %d", len(rest), size)
	}
	d.SegmentSize = 0
	for first := true; first || len(rest) > 0; first = false {
		n := min(size, len(rest))
		d.Buf, rest = rest[:n:n], rest[n:]
		got = append(got, d)
	}
	return got
}

func send(t *testing.T, c underlay.Conn, batch ...underlay.Datagram) {
	t.Helper()
	if n, err := c.WriteBatch(batch); n != len(batch) || err != nil {
		t.Fatalf("WriteBatch = %d of %d, %v", n, len(batch), err)
	}
}

// check compares a received datagram.
func check(t *testing.T, got underlay.Datagram, from netip.AddrPort, want []byte) {
	t.Helper()
	if got.Addr != from || got.SegmentSize != 0 || got.Err != nil {
		t.Fatalf("got a datagram from %s with segment size %d, %v; want it from %s", got.Addr, got.SegmentSize, got.Err, from)
	}
	if !bytes.Equal(got.Buf, want) {
		t.Fatalf("got %d bytes, want %d, or they differ", len(got.Buf), len(want))
	}
}

func testBothWays(t *testing.T, p Pair) {
	if p.A.LocalAddr().Port() != p.AddrA.Port() {
		t.Errorf("LocalAddr = %s, want the port of %s", p.A.LocalAddr(), p.AddrA)
	}
	send(t, p.A, underlay.Datagram{Addr: p.AddrB, Buf: []byte("ping")})
	check(t, receive(t, p.B, 1)[0], p.AddrA, []byte("ping"))
	send(t, p.B, underlay.Datagram{Addr: p.AddrA, Buf: []byte("pong")})
	check(t, receive(t, p.A, 1)[0], p.AddrB, []byte("pong"))
}

// testLongBatch: a batch longer than one system call allows arrives in order.
func testLongBatch(t *testing.T, p Pair) {
	var batch []underlay.Datagram
	for n := range 150 {
		batch = append(batch, underlay.Datagram{Addr: p.AddrB, Buf: payload(n, 40+n)})
	}
	send(t, p.A, batch...)
	for n, d := range receive(t, p.B, len(batch)) {
		check(t, d, p.AddrA, payload(n, 40+n))
	}
}

func testSizes(t *testing.T, p Pair) {
	for _, size := range []int{0, 1, 1472, 1500, 9000} {
		send(t, p.A, underlay.Datagram{Addr: p.AddrB, Buf: payload(1, size)})
		check(t, receive(t, p.B, 1)[0], p.AddrA, payload(1, size))
	}
}

// testFailingElements: an element that cannot be sent does not affect others, and has an error.
func testFailingElements(t *testing.T, p Pair) {
	batch := []underlay.Datagram{
		{Addr: p.AddrB, Buf: payload(0, 100)},
		{Addr: p.AddrB, Buf: payload(1, underlay.MaxDatagram+100)},
		{Addr: netip.AddrPort{}, Buf: payload(2, 100)},
		{Addr: p.AddrB, Buf: payload(3, 100)},
		{Addr: p.AddrB, Buf: payload(4, 3*underlay.MaxDatagram), SegmentSize: 2 * underlay.MaxDatagram},
		{Addr: p.AddrB, Buf: payload(5, 100), Err: errors.New("of an earlier call")},
	}
	n, err := p.A.WriteBatch(batch)
	if n != 3 || !errors.Is(err, syscall.EMSGSIZE) {
		t.Fatalf("WriteBatch = %d, %v; want 3 and EMSGSIZE", n, err)
	}
	for i, want := range []error{nil, syscall.EMSGSIZE, syscall.EINVAL, nil, syscall.EMSGSIZE, nil} {
		if !errors.Is(batch[i].Err, want) {
			t.Errorf("element %d: %v, want %v", i, batch[i].Err, want)
		}
	}
	got := receive(t, p.B, 3)
	for i, want := range []int{0, 3, 5} {
		if i < len(got) && len(got[i].Buf) == 100 {
			check(t, got[i], p.AddrA, payload(want, 100))
		}
	}
}

// testTruncated: a datagram longer than its buffer is not returned in part, and the others are complete. They are sent
// one by one, as merged datagrams would be dropped together.
func testTruncated(t *testing.T, p Pair) {
	for n, size := range []int{1001, 1000, 5000, 999} {
		send(t, p.A, underlay.Datagram{Addr: p.AddrB, Buf: payload(n, size)})
	}
	watch := time.AfterFunc(patience, func() { p.B.Close() })
	defer watch.Stop()
	batch := newBatch(4, 1000)
	var got []underlay.Datagram
	for len(got) < 2 {
		n, err := Read(p.B, batch)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range batch[:n] {
			d.Buf = bytes.Clone(d.Buf)
			got = append(got, d)
		}
	}
	check(t, got[0], p.AddrA, payload(1, 1000))
	check(t, got[1], p.AddrA, payload(3, 999))
	seen := map[*byte]bool{}
	for _, d := range batch {
		seen[&d.Buf[:1][0]] = true
	}
	if len(seen) != len(batch) {
		t.Error("two elements share a buffer")
	}
}

// testWriters: several goroutines may write.
func testWriters(t *testing.T, p Pair) {
	const writers, each = 4, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range each {
				batch := []underlay.Datagram{{Addr: p.AddrB, Buf: []byte{byte(w), byte(n)}}}
				if _, err := p.A.WriteBatch(batch); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var next [writers]byte
	for _, d := range receive(t, p.B, writers*each) {
		if w, n := d.Buf[0], d.Buf[1]; next[w] != n {
			t.Fatalf("writer %d: datagram %d, want %d", w, n, next[w])
		}
		next[d.Buf[0]]++
	}
}

func testClose(t *testing.T, p Pair) {
	ended := make(chan error)
	go func() {
		_, err := Read(p.A, newBatch(8, 1000))
		ended <- err
	}()
	if err := p.A.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a waiting ReadBatch ends with %v", err)
	}
	if _, err := Read(p.A, newBatch(8, 1000)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadBatch after Close: %v", err)
	}
	if _, err := p.A.WriteBatch([]underlay.Datagram{{Addr: p.AddrB, Buf: payload(0, 1)}}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("WriteBatch after Close: %v", err)
	}
	if err := p.A.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func testNoAllocation(t *testing.T, p Pair) {
	out := []underlay.Datagram{
		{Addr: p.AddrB, Buf: payload(0, 1000)},
		{Addr: p.AddrB, Buf: payload(1, 1000), SegmentSize: 400, TOS: 2},
		{Addr: p.AddrB, Buf: payload(2, 300), More: [][]byte{payload(3, 1), payload(4, 199)}, SegmentSize: 50},
	}
	in := newBatch(8, 1<<16)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := p.A.WriteBatch(out); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < 1000+1000+500; {
			n, err := Read(p.B, in)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range in[:n] {
				got += len(d.Buf)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations to send and receive", n)
	}
}
