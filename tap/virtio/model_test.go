package virtio_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"pgregory.net/rapid"

	"weft/tap/virtio"
)

// packet describes a superframe or a single frame. build writes it; segment, which does not use packet, cuts the
// written bytes. Neither uses the package under test.
type packet struct {
	tags      []uint16 // EtherTypes of the tags, outermost first
	ipv6      bool
	udp       bool
	tos, ttl  uint8
	id        uint16
	df        bool
	ipOptions []byte  // IPv4, a multiple of four
	extension []uint8 // IPv6, types of headers of eight bytes
	srcPort   uint16
	seq, ack  uint32
	flags     uint8
	tcpOption []byte // a multiple of four
	payload   []byte
}

const (
	fin, syn, rst, psh, ack, urg, ece, cwr = 1, 2, 4, 8, 16, 32, 64, 128
)

var be = binary.BigEndian

// tcp4 returns a plain packet, for tests to vary.
func tcp4(payload int) packet {
	return packet{
		ttl: 64, id: 1000, df: true, srcPort: 40000, seq: 1 << 31, ack: 77, flags: ack, payload: pattern(payload),
	}
}

func (p packet) with(change func(*packet)) packet { change(&p); return p }

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// build returns the bytes of p, with the sum of the pseudo-header as checksum, and the offsets of the IP and transport
// headers.
func (p packet) build() (frame []byte, l3, l4 int) {
	frame = append(frame, 0x0a, 0, 0, 0, 0, 1, 0x0a, 0, 0, 0, 0, 2)
	for _, tag := range p.tags {
		frame = be.AppendUint16(frame, tag)
		frame = be.AppendUint16(frame, 0x2064)
	}
	kind, transport := uint16(0x0800), p.transport()
	if p.ipv6 {
		kind = 0x86dd
	}
	frame = be.AppendUint16(frame, kind)
	l3 = len(frame)
	if p.ipv6 {
		frame = p.appendIPv6(frame, len(transport))
	} else {
		frame = p.appendIPv4(frame, len(transport))
	}
	l4 = len(frame)
	frame = append(frame, transport...)
	at := l4 + 16
	if p.udp {
		at = l4 + 6
	}
	be.PutUint16(frame[at:], foldNaive(pseudoNaive(frame, l3, l4)))
	return frame, l3, l4
}

func (p packet) protocol() uint8 {
	if p.udp {
		return 17
	}
	return 6
}

func (p packet) appendIPv4(b []byte, transport int) []byte {
	start := len(b)
	length := 20 + len(p.ipOptions)
	b = append(b, 0x40|byte(length/4), p.tos)
	b = be.AppendUint16(b, uint16(length+transport))
	b = be.AppendUint16(b, p.id)
	fragment := uint16(0)
	if p.df {
		fragment = 0x4000
	}
	b = be.AppendUint16(b, fragment)
	b = append(b, p.ttl, p.protocol(), 0, 0, 10, 32, 0, 1, 10, 32, 0, 2)
	b = append(b, p.ipOptions...)
	be.PutUint16(b[start+10:], ^foldNaive(sumNaive(b[start:])))
	return b
}

func (p packet) appendIPv6(b []byte, transport int) []byte {
	chain := append(append([]uint8(nil), p.extension...), p.protocol())
	b = be.AppendUint32(b, 6<<28|uint32(p.tos)<<20|0x12345)
	b = be.AppendUint16(b, uint16(8*len(p.extension)+transport))
	b = append(b, chain[0], p.ttl)
	for _, a := range []string{"fd00::1", "fd00::2"} {
		ip := netip.MustParseAddr(a).As16()
		b = append(b, ip[:]...)
	}
	for i, kind := range p.extension {
		header := []byte{chain[i+1], 0, 1, 4, 0, 0, 0, 0} // PadN
		if kind == 43 {
			header = []byte{chain[i+1], 0, 4, 0, 0, 0, 0, 0} // a segment routing header without segments left
		}
		b = append(b, header...)
	}
	return b
}

func (p packet) transport() (b []byte) {
	b = be.AppendUint16(b, p.srcPort)
	b = be.AppendUint16(b, 5201)
	if p.udp {
		b = be.AppendUint16(b, uint16(8+len(p.payload)))
		b = append(b, 0, 0)
		return append(b, p.payload...)
	}
	b = be.AppendUint32(b, p.seq)
	b = be.AppendUint32(b, p.ack)
	b = append(b, byte((20+len(p.tcpOption))/4)<<4, p.flags, 0x12, 0x34, 0, 0, 0, 0)
	b = append(b, p.tcpOption...)
	return append(b, p.payload...)
}

// superframe returns p as a superframe.
func (p packet) superframe(size int) (virtio.Header, []byte) {
	frame, _, l4 := p.build()
	h := virtio.Header{
		Flags: virtio.FlagNeedsChecksum, GSOType: virtio.GSOTCPv4, GSOSize: uint16(size),
		CsumStart: uint16(l4), CsumOffset: 16,
	}
	switch {
	case p.udp:
		h.GSOType, h.CsumOffset = virtio.GSOUDPL4, 6
	case p.ipv6:
		h.GSOType = virtio.GSOTCPv6
	}
	if !p.udp && p.flags&cwr != 0 {
		h.GSOType |= virtio.GSOECN
	}
	return h, frame
}

// single returns p as a single frame, with a partial or a complete checksum.
func (p packet) single(partial bool) (virtio.Header, []byte) {
	h, frame := p.superframe(0)
	h.GSOType = virtio.GSONone
	if !partial {
		frame = segment(h, frame)[0]
		h = virtio.Header{}
	}
	return h, frame
}

// segment returns the frames that the kernel would send for frame: it does the work of NEEDS_CSUM and GSO, byte by
// byte.
func segment(h virtio.Header, frame []byte) (out [][]byte) {
	if h.Flags&virtio.FlagNeedsChecksum == 0 {
		return [][]byte{append([]byte(nil), frame...)}
	}
	l4, field := int(h.CsumStart), int(h.CsumStart+h.CsumOffset)
	finish := func(b []byte) {
		checksum := ^foldNaive(sumNaive(b[l4:]))
		if checksum == 0 && h.CsumOffset == 6 {
			checksum = 0xffff
		}
		be.PutUint16(b[field:], checksum)
	}
	if h.GSOType == virtio.GSONone {
		b := append([]byte(nil), frame...)
		finish(b)
		return [][]byte{b}
	}
	l3 := networkStart(frame)
	headers := l4 + 8
	if h.CsumOffset == 16 {
		headers = l4 + int(frame[l4+12]>>4)*4
	}
	payload := frame[headers:]
	for i := 0; i*int(h.GSOSize) < len(payload); i++ {
		at := i * int(h.GSOSize)
		rest := payload[at:]
		last := len(rest) <= int(h.GSOSize)
		if !last {
			rest = rest[:h.GSOSize]
		}
		b := append(append([]byte(nil), frame[:headers]...), rest...)
		if b[l3]>>4 == 6 {
			be.PutUint16(b[l3+4:], uint16(len(b)-l3-40))
		} else {
			be.PutUint16(b[l3+2:], uint16(len(b)-l3))
			be.PutUint16(b[l3+4:], be.Uint16(b[l3+4:])+uint16(i))
			be.PutUint16(b[l3+10:], 0)
			be.PutUint16(b[l3+10:], ^foldNaive(sumNaive(b[l3:l3+int(b[l3]&15)*4])))
		}
		if h.CsumOffset == 6 {
			be.PutUint16(b[l4+4:], uint16(len(b)-l4))
		} else {
			be.PutUint32(b[l4+4:], be.Uint32(b[l4+4:])+uint32(at))
			if !last {
				b[l4+13] &^= fin | psh
			}
			if i > 0 {
				b[l4+13] &^= cwr
			}
		}
		be.PutUint16(b[field:], 0)
		be.PutUint16(b[field:], foldNaive(pseudoNaive(b, l3, l4)))
		finish(b)
		out = append(out, b)
	}
	return out
}

func networkStart(frame []byte) int {
	at := 12
	for be.Uint16(frame[at:]) == 0x8100 || be.Uint16(frame[at:]) == 0x88a8 {
		at += 4
	}
	return at + 2
}

func sumNaive(b []byte) (sum uint32) {
	for i, v := range b {
		if i%2 == 0 {
			sum += uint32(v) << 8
		} else {
			sum += uint32(v)
		}
	}
	return sum
}

func foldNaive(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// pseudoNaive returns the sum of the pseudo-header of the packet in frame.
func pseudoNaive(frame []byte, l3, l4 int) uint32 {
	length := uint32(len(frame) - l4)
	if frame[l3]>>4 == 4 {
		return sumNaive(frame[l3+12:l3+20]) + uint32(frame[l3+9]) + length
	}
	next, at := frame[l3+6], l3+40
	for at < l4 {
		next, at = frame[at], at+8*(1+int(frame[at+1]))
	}
	return sumNaive(frame[l3+8:l3+40]) + uint32(next) + length
}

// flatten returns f in one piece.
func flatten(f virtio.Frame) []byte {
	b := append([]byte(nil), f.Data...)
	for _, piece := range f.More {
		b = append(b, piece...)
	}
	return b
}

// drawPacket draws a packet of any shape with 1 to most bytes of payload.
func drawPacket(t *rapid.T, most int) packet {
	p := packet{
		ipv6: rapid.Bool().Draw(t, "ipv6"), udp: rapid.Bool().Draw(t, "udp"),
		tos: rapid.Byte().Draw(t, "tos"), ttl: rapid.Byte().Draw(t, "ttl"),
		id: rapid.Uint16().Draw(t, "id"), df: rapid.Bool().Draw(t, "df"),
		tags: rapid.SliceOfN(rapid.SampledFrom([]uint16{0x8100, 0x88a8}), 0, 2).Draw(t, "tags"),
		seq:  rapid.Uint32().Draw(t, "seq"), ack: rapid.Uint32().Draw(t, "ack"),
		flags: ack | uint8(uniform(t, 256, "flags"))&(fin|psh|ece|cwr), srcPort: rapid.Uint16().Draw(t, "port"),
	}
	if p.ipv6 {
		p.extension = rapid.SliceOfN(rapid.SampledFrom([]uint8{0, 43, 60}), 0, 3).Draw(t, "extension")
	} else {
		p.ipOptions = drawOptions(t, "ip options")
	}
	p.tcpOption = drawOptions(t, "tcp options")
	p.payload = pattern(1 + uniform(t, most, "payload"))
	return p
}

func drawOptions(t *rapid.T, label string) []byte {
	return make([]byte, 4*rapid.IntRange(0, 10).Draw(t, label)) // all zero: end of options
}

// drawSize draws a segment size that a superframe of p may have.
func drawSize(t *rapid.T, p packet) int {
	most := 2048
	if p.udp {
		most = 128
	}
	least := (len(p.payload) + most - 1) / most
	return least + uniform(t, 2000-least, "size")
}

// uniform draws a number below n with equal probabilities; rapid itself prefers small ones.
func uniform(t *rapid.T, n int, label string) int {
	return rand.New(rand.NewPCG(rapid.Uint64().Draw(t, label), 0)).IntN(n)
}
