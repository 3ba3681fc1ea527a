package flowhash

import (
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"weft/internal/ether"
)

// packet4 returns a frame of an IPv4 packet with the last bytes of the addresses, the ports, and the field of flags and offset.
func packet4(protocol, source, destination byte, sourcePort, destinationPort, fragment uint16) []byte {
	f := make([]byte, 14+20+20)
	copy(f[:6], []byte{2, 0, 0, 0, 0, destination})
	copy(f[6:12], []byte{2, 0, 0, 0, 0, source})
	binary.BigEndian.PutUint16(f[12:], ether.TypeIPv4)
	ip := f[14:]
	ip[0], ip[9] = 0x45, protocol
	copy(ip[12:], []byte{10, 32, 0, source, 10, 32, 0, destination})
	binary.BigEndian.PutUint16(ip[6:], fragment)
	binary.BigEndian.PutUint16(ip[20:], sourcePort)
	binary.BigEndian.PutUint16(ip[22:], destinationPort)
	return f
}

// packet6 is packet4 for IPv6.
func packet6(source, destination byte, sourcePort, destinationPort uint16) []byte {
	f := make([]byte, 14+40+20)
	binary.BigEndian.PutUint16(f[12:], ether.TypeIPv6)
	ip := f[14:]
	ip[0], ip[6], ip[8], ip[23], ip[24], ip[39] = 0x60, 6, 0xfd, source, 0xfd, destination
	binary.BigEndian.PutUint16(ip[40:], sourcePort)
	binary.BigEndian.PutUint16(ip[42:], destinationPort)
	return f
}

// TestIndex: both directions of a flow have one index, flows differ, and the indexes of many flows are even.
func TestIndex(t *testing.T) {
	for _, n := range []int{1, 2, 3, 8} {
		counts := [2][]int{make([]int, n), make([]int, n)}
		const flows = 4000
		for i := range uint16(flows) {
			for family, pair := range [2][2][]byte{
				{packet4(6, 1, byte(2+i%3), 32768+i, 80, 0), packet4(6, byte(2+i%3), 1, 80, 32768+i, 0)},
				{packet6(1, byte(2+i%3), 32768+i, 80), packet6(byte(2+i%3), 1, 80, 32768+i)},
			} {
				there, back := Of(pair[0]).Index(n, 0), Of(pair[1]).Index(n, 0)
				if there != back {
					t.Fatalf("flow %d of %d: %d there and %d back", i, n, there, back)
				}
				counts[family][there]++
			}
		}
		for family, count := range counts {
			for index, got := range count {
				if got < flows/n*4/5 || got > flows/n*6/5 {
					t.Errorf("family %d: index %d of %d has %d of %d flows", family, index, n, got, flows)
				}
			}
		}
	}
}

// TestPairs: flows between pairs of hosts spread although the pairs have the same sum.
func TestPairs(t *testing.T) {
	const n, pairs = 8, 60
	seen := map[int]int{}
	for i := range byte(pairs) {
		seen[Of(packet4(6, 2+i, 200-i, 1000, 80, 0)).Index(n, 0)]++
	}
	for index, got := range seen {
		if got > pairs/n*3 {
			t.Errorf("index %d of %d has %d of %d flows", index, n, got, pairs)
		}
	}
	if len(seen) != n {
		t.Errorf("indexes %v", seen)
	}
}

// TestFragments: all fragments of a packet have one index, whatever stands where a port would; so do packets of a protocol without ports.
func TestFragments(t *testing.T) {
	const n = 1 << 20
	first, later := packet4(17, 1, 2, 1000, 2000, 0x2000), packet4(17, 1, 2, 7, 8, 185)
	if Of(first).Index(n, 0) != Of(later).Index(n, 0) {
		t.Error("fragments have different indexes")
	}
	if Of(packet4(17, 1, 2, 1000, 2000, 0x4000)).Index(n, 0) != Of(packet4(17, 1, 2, 1000, 2000, 0)).Index(n, 0) {
		t.Error("the flag \"don't fragment\" matters")
	}
	if Of(packet4(1, 1, 2, 1, 2, 0)).Index(n, 0) != Of(packet4(1, 1, 2, 3, 4, 0)).Index(n, 0) {
		t.Error("the bytes of ICMP matter")
	}
	if Of(packet4(6, 1, 2, 1, 2, 0)).Index(n, 0) == Of(packet4(6, 1, 3, 1, 2, 0)).Index(n, 0) {
		t.Error("the address does not matter")
	}
}

// TestAnyFrame: any frame has an index within bounds.
func TestAnyFrame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SliceOfN(rapid.Byte(), 14, 80).Draw(t, "frame")
		binary.BigEndian.PutUint16(f[12:], rapid.SampledFrom([]uint16{ether.TypeIPv4, ether.TypeIPv6, ether.TypeARP}).Draw(t, "type"))
		n := rapid.IntRange(1, 8).Draw(t, "n")
		if i := Of(f).Index(n, 0); i < 0 || i >= n {
			t.Fatalf("index %d of %d", i, n)
		}
	})
}

func BenchmarkIndex(b *testing.B) {
	f := packet4(6, 1, 2, 40000, 80, 0)
	for b.Loop() {
		Of(f).Index(8, 0)
	}
}

// TestSalt: among the flows with one index, those of another salt are even.
func TestSalt(t *testing.T) {
	const n, m, flows = 2, 8, 8000
	var counts [n][m]int
	for i := range uint16(flows) {
		f := packet4(6, 1, byte(2+i%3), 32768+i, 80, 0)
		counts[Of(f).Index(n, 0)][Of(f).Index(m, 1)]++
	}
	for index, count := range counts {
		for other, got := range count {
			if got < flows/n/m*3/4 || got > flows/n/m*5/4 {
				t.Errorf("index %d and %d: %d of %d flows", index, other, got, flows)
			}
		}
	}
}
