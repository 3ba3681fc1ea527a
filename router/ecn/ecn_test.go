package ecn

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"weft/internal/ether"
	"weft/internal/packet"
)

// frameOf returns a frame with an IP header of the version 4 or 6, behind tags VLAN tags.
func frameOf(version, tags int, tos uint8) []byte {
	f := make([]byte, 12, 128)
	for range tags {
		f = binary.BigEndian.AppendUint16(f, ether.TypeVLAN)
		f = append(f, 0xe0, 7)
	}
	if version == 6 {
		f = binary.BigEndian.AppendUint16(f, ether.TypeIPv6)
		f = binary.BigEndian.AppendUint32(f, 6<<28|uint32(tos)<<20|0xabcde) // a flow label
		return append(f, make([]byte, packet.IPv6Len-4+8)...)
	}
	f = binary.BigEndian.AppendUint16(f, ether.TypeIPv4)
	at := len(f)
	f = append(f, 0x45, tos, 0, 28, 0x12, 0x34, 0x40, 0, 64, 17, 0, 0, 10, 32, 0, 1, 10, 32, 0, 2)
	binary.BigEndian.PutUint16(f[at+packet.IPv4Checksum:], checksum(f[at:]))
	return append(f, make([]byte, 8)...)
}

// checksum returns the checksum of an IPv4 header (RFC 1071).
func checksum(ip []byte) uint16 {
	var sum uint32
	for i := 0; i < packet.IPv4HeaderLen(ip); i += 2 {
		if i != packet.IPv4Checksum {
			sum += uint32(binary.BigEndian.Uint16(ip[i:]))
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// TestDecapsulate has every combination of RFC 6040, figure 4: its rows, with the columns Not-ECT, ECT(0), ECT(1), CE.
func TestDecapsulate(t *testing.T) {
	const dropped = 0xee
	columns := [4]uint8{NotECT, ECT0, ECT1, CE}
	for inner, row := range map[uint8][4]uint8{
		NotECT: {NotECT, NotECT, NotECT, dropped},
		ECT0:   {ECT0, ECT0, ECT1, CE},
		ECT1:   {ECT1, ECT1, ECT1, CE},
		CE:     {CE, CE, CE, CE},
	} {
		for i, outer := range columns {
			for _, version := range []int{4, 6} {
				for tags := range 3 {
					for _, dscp := range []uint8{0, 46 << 2, 63 << 2} { // the DSCP of the outer header has no effect
						f := frameOf(version, tags, 0x68|inner)
						want := f
						if row[i] != dropped {
							want = frameOf(version, tags, 0x68|row[i])
						}
						got := bytes.Clone(f)
						ok := Decapsulate(got, dscp|outer)
						if ok != (row[i] != dropped) || !bytes.Equal(got, want) {
							t.Errorf("IPv%d, %d tags, inner %02b, outer %02b: %v\n%x, want\n%x", version, tags, inner, outer, ok, got, want)
						}
						if !Changes(dscp|outer) && !bytes.Equal(got, f) {
							t.Errorf("inner %02b, outer %02b: a change that Changes does not report", inner, outer)
						}
					}
				}
			}
		}
	}
}

// TestTOS: every value is found in both families, behind tags.
func TestTOS(t *testing.T) {
	for tos := range 256 {
		for _, version := range []int{4, 6} {
			for tags := range 3 {
				if got := TOS(frameOf(version, tags, uint8(tos))); got != uint8(tos) {
					t.Errorf("IPv%d, %d tags: TOS %02x, want %02x", version, tags, got, tos)
				}
			}
		}
	}
}

// TestOtherFrames: frames without a whole IP header have TOS 0 and pass unchanged.
func TestOtherFrames(t *testing.T) {
	arp := frameOf(4, 0, 0xff)
	binary.BigEndian.PutUint16(arp[12:], ether.TypeARP)
	version := frameOf(4, 0, 0xff)
	version[14] = 0x65
	for name, f := range map[string][]byte{
		"ARP": arp, "the version of another family": version, "three tags": frameOf(4, 3, 0xff), "empty": {},
		"a header that is cut": frameOf(4, 0, 0xff)[:33], "IPv6, cut": frameOf(6, 1, 0xff)[:57], "within a tag": frameOf(4, 1, 0xff)[:17],
	} {
		got := bytes.Clone(f)
		if tos := TOS(f); tos != 0 || !Decapsulate(got, CE) || !bytes.Equal(got, f) {
			t.Errorf("%s: TOS %02x, %x", name, tos, got)
		}
	}
}

// TestChecksum: the updated checksum of any IPv4 header is what a full computation gives, and a wrong one stays wrong.
func TestChecksum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := frameOf(4, 0, 0)
		ip := append(f[:14:14], rapid.SliceOfN(rapid.Byte(), 60, 60).Draw(t, "header")...)[14:]
		ip[0] = 4<<4 | uint8(rapid.IntRange(5, 15).Draw(t, "words"))
		ip[packet.IPv4TOS] = ip[packet.IPv4TOS]&^Mask | rapid.SampledFrom([]uint8{ECT0, ECT1, CE}).Draw(t, "inner")
		binary.BigEndian.PutUint16(ip[packet.IPv4Checksum:], checksum(ip))
		wrong := rapid.Bool().Draw(t, "wrong")
		if wrong {
			ip[packet.IPv4Checksum] ^= 1
		}
		frame := append(f[:14:14], ip...)
		if !Decapsulate(frame, rapid.Byte().Draw(t, "outer")) {
			t.Fatal("dropped")
		}
		ip = frame[14:]
		if right := binary.BigEndian.Uint16(ip[packet.IPv4Checksum:]) == checksum(ip); right == wrong {
			t.Fatalf("checksum right %v, was wrong %v: %x", right, wrong, ip)
		}
	})
}

// FuzzDecapsulate: no frame causes a panic, and no byte but those of the field and the checksum changes.
func FuzzDecapsulate(f *testing.F) {
	for _, version := range []int{4, 6} {
		for tags := range 4 {
			f.Add(frameOf(version, tags, ECT0), uint8(CE))
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte, outer uint8) {
		got := bytes.Clone(frame)
		ok := Decapsulate(got, outer)
		changed := 0
		for i := range got {
			if got[i] != frame[i] {
				changed++
			}
		}
		if changed > 3 || !ok && changed > 0 || TOS(got)&^Mask != TOS(frame)&^Mask {
			t.Errorf("%d bytes changed, %v: %x, was %x", changed, ok, got, frame)
		}
	})
}

func TestNoAllocation(t *testing.T) {
	for _, version := range []int{4, 6} {
		f := frameOf(version, 2, ECT0)
		if n := testing.AllocsPerRun(100, func() {
			TOS(f)
			Decapsulate(f, CE)
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}
