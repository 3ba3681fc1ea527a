package underlay

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// plain returns the datagrams of element d, cut without the use of messages.
func plain(d *Datagram) [][]byte {
	whole := slices.Concat(append([][]byte{d.Buf}, d.More...)...)
	if len(whole) == 0 {
		return [][]byte{{}}
	}
	if d.SegmentSize <= 0 {
		return [][]byte{whole}
	}
	return slices.Collect(slices.Chunk(whole, d.SegmentSize))
}

// payloads returns the datagrams in q's messages, and checks that the kernel would accept each message.
func payloads(t *rapid.T, q *queue) (got [][]byte, to []netip.AddrPort, tos []uint8) {
	q.finish()
	for i := range q.queued {
		h, o := &q.messages[i].header, &q.parts[i]
		var whole []byte
		for _, v := range unsafe.Slice(h.Iov, h.Iovlen) {
			whole = append(whole, unsafe.Slice(v.Base, v.Len)...)
		}
		size := messageSize(h)
		limit := maxMerged
		if o.addr.Addr().Is6() {
			limit = maxMerged6
		}
		if size > 0 && (len(whole) > limit || len(whole) <= size || o.segments > q.segments) || h.Iovlen > maxPieces {
			t.Fatalf("message of %d bytes, %d segments of %d, %d pieces", len(whole), o.segments, size, h.Iovlen)
		}
		if size == 0 {
			size = max(len(whole), 1)
		}
		before := len(got)
		for first := true; first || len(whole) > 0; first = false {
			n := min(size, len(whole))
			got, to, whole = append(got, whole[:n]), append(to, addrPort(&q.names[i])), whole[n:]
			tos = append(tos, messageTOS(h))
		}
		if len(got)-before != o.segments {
			t.Fatalf("%d datagrams, said to be %d", len(got)-before, o.segments)
		}
	}
	return got, to, tos
}

// arena holds the payloads of drawBatch, which often adjoin.
var arena = func() []byte {
	b := make([]byte, 1<<18)
	for i := range b {
		b[i] = byte(i * i >> 7)
	}
	return b
}()

func drawBatch(t *rapid.T) (batch []Datagram) {
	addrs := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.1:2"),
		netip.MustParseAddrPort("[2001:db8::1]:1")}
	at := 0
	piece := func(longest int) []byte {
		n := rapid.IntRange(0, longest).Draw(t, "piece")
		if at += rapid.IntRange(0, 1).Draw(t, "gap"); at+n > len(arena) {
			at = 0
		}
		at += n
		return arena[at-n : at : at]
	}
	longest := rapid.SampledFrom([]int{3, 100, 1500, 30_000}).Draw(t, "longest")
	for range rapid.IntRange(1, 30).Draw(t, "elements") {
		d := Datagram{Addr: rapid.SampledFrom(addrs).Draw(t, "addr"), Buf: piece(longest)}
		d.TOS = rapid.SampledFrom([]uint8{0, 0, 2, 3, 0xb8}).Draw(t, "TOS")
		for range rapid.SampledFrom([]int{0, 0, 1, 2, 10}).Draw(t, "pieces") {
			d.More = append(d.More, piece(longest))
		}
		d.SegmentSize = rapid.SampledFrom([]int{0, 1, 50, 100, 100, 1458, 40_000}).Draw(t, "size")
		if d.SegmentSize == 0 && len(plain(&d)[0]) > MaxDatagram {
			d.SegmentSize = 1458
		}
		batch = append(batch, d)
	}
	return batch
}

// TestQueue: the messages hold the same datagrams in the same order.
func TestQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		batch := drawBatch(t)
		var q queue
		q.init(rapid.IntRange(1, 40).Draw(t, "messages"), rapid.SampledFrom([]int{40, 200, 2000}).Draw(t, "iov"), netip.Addr{})
		q.segments = rapid.SampledFrom([]int{1, 2, maxSegments}).Draw(t, "segments")
		var want, got [][]byte
		var wantTo, gotTo []netip.AddrPort
		var wantTOS, gotTOS []uint8
		flush := func() {
			datagrams, to, tos := payloads(t, &q)
			got, gotTo, gotTOS = append(got, datagrams...), append(gotTo, to...), append(gotTOS, tos...)
			q.reset()
		}
		for i := range batch {
			for _, datagram := range plain(&batch[i]) {
				want, wantTo = append(want, datagram), append(wantTo, batch[i].Addr)
				wantTOS = append(wantTOS, batch[i].TOS)
			}
			p := start(batch, i)
			for first := true; first || p.left > 0; first = false {
				if q.add(batch, &p, batch[i].Addr, true) {
					continue
				}
				flush()
				if !q.add(batch, &p, batch[i].Addr, true) {
					t.Skip("a datagram of too many pieces")
				}
			}
		}
		flush()
		if !slices.EqualFunc(got, want, bytes.Equal) || !slices.Equal(gotTo, wantTo) || !slices.Equal(gotTOS, wantTOS) {
			t.Fatalf("%d datagrams, want %d, or they differ", len(got), len(want))
		}
	})
}

func withTOS(batch []Datagram, tos uint8) []Datagram {
	for i := range batch {
		batch[i].TOS = tos
	}
	return batch
}

// TestQueuePacks: the queue uses no more messages and pieces than needed.
func TestQueuePacks(t *testing.T) {
	a, b := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[2001:db8::1]:1")
	frames := func(n, size int, addr netip.AddrPort) (batch []Datagram) {
		for i := range n {
			batch = append(batch, Datagram{Addr: addr, Buf: arena[i*size : (i+1)*size]})
		}
		return batch
	}
	for _, tt := range []struct {
		name             string
		batch            []Datagram
		messages, pieces int
	}{
		{"equal frames", frames(128, 82, a), 2, 2},
		{"a shorter one ends a message", slices.Concat(frames(10, 82, a), frames(1, 50, a), frames(10, 82, a)), 2, 3},
		{"a longer one starts a message", slices.Concat(frames(10, 82, a), frames(10, 83, a)), 2, 2},
		{"another peer starts a message", slices.Concat(frames(10, 82, a), frames(10, 82, b), frames(10, 82, a)), 3, 3},
		{"another TOS starts a message", slices.Concat(frames(10, 82, a), withTOS(frames(10, 82, a), 3), frames(10, 82, a)), 3, 3},
		{"superframe", []Datagram{{Addr: a, Buf: arena[:70_000], SegmentSize: 1458}}, 2, 2},
		{"superframes", []Datagram{
			{Addr: a, Buf: arena[:10*1458], SegmentSize: 1458}, {Addr: a, Buf: arena[10*1458 : 20*1458], SegmentSize: 1458},
		}, 1, 1},
		{"superframe with pieces", []Datagram{
			{Addr: a, Buf: arena[:62], More: [][]byte{arena[100:1496], arena[:62], arena[2000:3396]}, SegmentSize: 1458},
		}, 1, 4},
		{"as long as a message", []Datagram{{Addr: a, Buf: arena[:3*21_829], SegmentSize: 21_829}}, 1, 1},
		{"longer than that", []Datagram{{Addr: a, Buf: arena[:3*21_830], SegmentSize: 21_830}}, 2, 2},
	} {
		var q queue
		q.init(10, 100, netip.Addr{})
		q.segments = maxSegments
		for i := range tt.batch {
			for p, first := start(tt.batch, i), true; first || p.left > 0; first = false {
				q.add(tt.batch, &p, tt.batch[i].Addr, true)
			}
		}
		if q.queued != tt.messages || q.pieces != tt.pieces {
			t.Errorf("%s: %d messages of %d pieces, want %d and %d", tt.name, q.queued, q.pieces, tt.messages, tt.pieces)
		}
	}
}

// TestControl: segment size, TOS and source work together, and each alone. The TOS has the option of the destination's family.
func TestControl(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::9")
	var c control
	for _, source := range []netip.Addr{{}, v4, v6} {
		c.init(source)
		for _, to := range []netip.Addr{v4, v6} {
			for _, size := range []int{0, 1458} {
				for _, tos := range []uint8{0, 0xbb} {
					var h unix.Msghdr
					c.set(&h, size, tos, to)
					ip, info, class := uint32(unix.IPPROTO_IP), uint32(unix.IP_PKTINFO), uint32(unix.IP_TOS)
					if to == v6 {
						ip, info, class = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.IPV6_TCLASS
					}
					var want [][2]uint32
					if size > 0 {
						want = append(want, [2]uint32{unix.SOL_UDP, unix.UDP_SEGMENT})
					}
					if tos != 0 {
						want = append(want, [2]uint32{ip, class})
					}
					if source == to {
						want = append(want, [2]uint32{ip, info})
					}
					if got := controlsOf(&h); !slices.Equal(got, want) || messageSize(&h) != size || messageTOS(&h) != tos {
						t.Errorf("from %v to %v in %d with TOS %x: messages %v, want %v", source, to, size, tos, got, want)
					}
				}
			}
		}
	}
}

// controlsOf returns the levels and kinds of the control messages of h.
func controlsOf(h *unix.Msghdr) (all [][2]uint32) {
	if h.Control == nil {
		return nil
	}
	for b := unsafe.Slice(h.Control, h.Controllen); ; {
		level, kind, _, rest, ok := nextControl(b)
		if !ok {
			return all
		}
		all, b = append(all, [2]uint32{level, kind}), rest
	}
}

// messageTOS returns the TOS of a message to send.
func messageTOS(h *unix.Msghdr) uint8 {
	if h.Control == nil {
		return 0
	}
	_, tos := parseControl(unsafe.Slice(h.Control, h.Controllen))
	return tos
}
