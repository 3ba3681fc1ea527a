package virtio

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"weft/internal/packet"
)

// flows maps each flow of a batch to its latest entry. It is bounded: if there is no free slot near a flow's hash,
// another flow is evicted. Frames of that flow are then merged less, but stay in order.
type flows struct {
	slots      []flowSlot // their number is a power of two
	generation uint32     // slots of another generation are free
}

type flowSlot struct {
	generation uint32
	hash       uint32
	entry      int32
}

// maxProbes bounds the search for a flow, whichever flows a sender chooses.
const maxProbes = 8

func newFlows(entries int) flows {
	return flows{slots: make([]flowSlot, 1<<bits.Len(uint(max(2*entries, maxProbes)))), generation: 1}
}

// reset forgets all flows.
func (f *flows) reset() {
	f.generation++
	if f.generation == 0 {
		clear(f.slots)
		f.generation = 1
	}
}

// flowHash returns a hash of the addresses, the protocol and the ports.
func (l *Layout) flowHash(frame []byte) uint32 {
	const m1, m2 = 0x9e3779b97f4a7c15, 0xd6e8feb86659fd93 // odd, with many bits set
	ports := uint64(binary.LittleEndian.Uint32(frame[l.L4:]))
	if l.tcp {
		ports |= 1 << 32
	}
	h := ports * m1
	h ^= h >> 32
	if !l.ipv6 {
		h = (h ^ binary.LittleEndian.Uint64(frame[l.L3+packet.IPv4Source:])) * m2
		return uint32(h >> 32)
	}
	b := frame[l.L3+packet.IPv6Source : l.L3+packet.IPv6Source+32]
	for i := 0; i < len(b); i += 8 {
		h = (h ^ binary.LittleEndian.Uint64(b[i:])) * m2
		h ^= h >> 32
	}
	return uint32(h>>32) ^ uint32(h)
}

// sameFlow reports whether the packets a and b, with the layouts l and m, belong to one flow.
func (l *Layout) sameFlow(a []byte, m *Layout, b []byte) bool {
	if l.tcp != m.tcp || l.ipv6 != m.ipv6 || !bytes.Equal(a[l.L4:l.L4+4], b[m.L4:m.L4+4]) {
		return false
	}
	return bytes.Equal(l.addresses(a), m.addresses(b))
}

// addresses returns the two addresses of the IP header of frame.
func (l *Layout) addresses(frame []byte) []byte {
	if l.ipv6 {
		return frame[l.L3+packet.IPv6Source : l.L3+packet.IPv6Source+32]
	}
	return frame[l.L3+packet.IPv4Source : l.L3+packet.IPv4Source+8]
}
