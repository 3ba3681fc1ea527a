package underlaytest

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"weft/router/underlay"
)

// cut cuts b into datagrams of size bytes.
func cut(b []byte, size int) [][]byte { return slices.Collect(slices.Chunk(b, size)) }

// expect receives the datagrams want from p.A, in order.
func expect(t *testing.T, p Pair, want ...[]byte) {
	t.Helper()
	for n, d := range receive(t, p.B, len(want)) {
		if !bytes.Equal(d.Buf, want[n]) {
			t.Fatalf("datagram %d of %d: %d bytes, want %d, or they differ", n, len(want), len(d.Buf), len(want[n]))
		}
		check(t, d, p.AddrA, want[n])
	}
}

// testSegments: one element holds many datagrams; the last one may be shorter.
func testSegments(t *testing.T, p Pair) {
	whole := payload(3, 70*100+1)
	send(t, p.A,
		underlay.Datagram{Addr: p.AddrB, Buf: whole, SegmentSize: 100},
		underlay.Datagram{Addr: p.AddrB, Buf: whole[:200], SegmentSize: 100},
		underlay.Datagram{Addr: p.AddrB, Buf: whole[:50], SegmentSize: 100},
	)
	want := slices.Concat(cut(whole, 100), cut(whole[:200], 100), [][]byte{whole[:50]})
	expect(t, p, want...)
}

// testSuperframe: an element has more bytes than a message to the kernel may have.
func testSuperframe(t *testing.T, p Pair) {
	whole := payload(5, 300_000)
	send(t, p.A, underlay.Datagram{Addr: p.AddrB, Buf: whole, SegmentSize: 1458})
	expect(t, p, cut(whole, 1458)...)
}

// testTinySegments: an element has more datagrams than a message to the kernel may have.
func testTinySegments(t *testing.T, p Pair) {
	whole := payload(7, 10_000*3-1)
	send(t, p.A, underlay.Datagram{Addr: p.AddrB, Buf: whole, SegmentSize: 3})
	expect(t, p, cut(whole, 3)...)
}

// testLargestSegments: elements at the bounds of one message.
func testLargestSegments(t *testing.T, p Pair) {
	for _, size := range []int{32_700, 32_760, 40_000, 65_400, underlay.MaxDatagram} {
		whole := payload(size, 2*size+20)
		send(t, p.A, underlay.Datagram{Addr: p.AddrB, Buf: whole, SegmentSize: size})
		expect(t, p, cut(whole, size)...)
	}
	whole := payload(9, 100)
	send(t, p.A, underlay.Datagram{Addr: p.AddrB, Buf: whole, SegmentSize: 1 << 20})
	expect(t, p, whole)
}

// testPieces: pieces end anywhere, and some are empty.
func testPieces(t *testing.T, p Pair) {
	for _, lengths := range [][]int{{1}, {7, 0, 1}, {99, 1, 100, 101, 0, 0, 3}, {1000}, {0, 62, 38}} {
		whole := payload(len(lengths), 7000+len(lengths))
		d := underlay.Datagram{Addr: p.AddrB, SegmentSize: 100}
		for i, at := 0, 0; at < len(whole); i++ {
			to := min(at+lengths[i%len(lengths)], len(whole))
			piece := bytes.Clone(whole[at:to]) // so that the pieces do not adjoin in memory
			if i == 0 {
				d.Buf = piece
			} else {
				d.More = append(d.More, piece)
			}
			at = to
		}
		send(t, p.A, d)
		expect(t, p, cut(whole, 100)...)
	}
	send(t, p.A, underlay.Datagram{Addr: p.AddrB, More: [][]byte{nil, []byte("a"), nil, []byte("bc"), nil}})
	expect(t, p, []byte("abc"))
}

// testMixedSizes: one batch has single and segmented datagrams, longer and shorter ones.
func testMixedSizes(t *testing.T, p Pair) {
	var batch []underlay.Datagram
	var want [][]byte
	for n := range 400 {
		whole := payload(n, []int{1458, 1458, 1458, 82, 1458, 0, 3000, 82, 82, 5000, 1}[n%11])
		d := underlay.Datagram{Addr: p.AddrB, Buf: whole}
		switch {
		case n%4 == 0 && len(whole) > 0:
			d.SegmentSize = 82
			want = append(want, cut(whole, 82)...)
		case n%4 == 1 && len(whole) > 0:
			d.SegmentSize = 1458
			want = append(want, cut(whole, 1458)...)
		default:
			want = append(want, whole)
		}
		batch = append(batch, d)
	}
	send(t, p.A, batch...)
	expect(t, p, want...)
}

// testEmpty: an empty datagram arrives as one, at any position.
func testEmpty(t *testing.T, p Pair) {
	some := payload(1, 100)
	send(t, p.A,
		underlay.Datagram{Addr: p.AddrB},
		underlay.Datagram{Addr: p.AddrB, SegmentSize: 100},
		underlay.Datagram{Addr: p.AddrB, Buf: some},
		underlay.Datagram{Addr: p.AddrB, Buf: some},
		underlay.Datagram{Addr: p.AddrB, More: [][]byte{nil, {}}},
		underlay.Datagram{Addr: p.AddrB, Buf: some, SegmentSize: 50},
	)
	expect(t, p, nil, nil, some, some, nil, some[:50], some[50:])
}

// testPeers: a batch for several addresses in turn arrives at each of them in order.
func testPeers(t *testing.T, p Pair) {
	var batch []underlay.Datagram
	var want [2][][]byte
	for n := range 120 {
		to := n / 3 % 2
		whole := payload(n, 400-n%3)
		batch = append(batch, underlay.Datagram{Addr: [...]netip.AddrPort{p.AddrA, p.AddrB}[to], Buf: whole, SegmentSize: 100})
		want[to] = append(want[to], cut(whole, 100)...)
	}
	send(t, p.A, batch...)
	for to, c := range []underlay.Conn{p.A, p.B} {
		for n, d := range receive(t, c, len(want[to])) {
			check(t, d, p.AddrA, want[to][n])
		}
	}
}

// testTOS: each datagram arrives with its own TOS, also between datagrams of equal size with another one.
func testTOS(t *testing.T, p Pair) {
	var batch []underlay.Datagram
	var want []uint8
	for _, tos := range []uint8{0, 1, 2, 3, 0, 0xb8, 0xba, 0xbb, 0xff, 0xff, 0, 3, 3, 2} {
		batch = append(batch, underlay.Datagram{Addr: p.AddrB, Buf: payload(int(tos), 100), TOS: tos},
			underlay.Datagram{Addr: p.AddrB, Buf: payload(int(tos), 250), SegmentSize: 100, TOS: tos})
		want = append(want, tos, tos, tos, tos)
	}
	send(t, p.A, batch...)
	var got []uint8
	for _, d := range receive(t, p.B, len(want)) {
		got = append(got, d.TOS)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got the TOS %x, want %x", got, want)
	}
}
