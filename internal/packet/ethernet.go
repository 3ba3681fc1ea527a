package packet

import (
	"encoding/binary"

	"weft/internal/ether"
)

// TagLen is the length of a VLAN tag in bytes.
const TagLen = 4

// vlanMask selects the VLAN ID of a tag: the lower 12 bits of the TCI, below priority and drop eligibility.
const vlanMask = 0x0fff

// Ethernet returns the offset of the payload of an Ethernet II frame, and the EtherType of that payload. It walks over
// at most maxTags VLAN tags, 802.1Q and 802.1ad (IEEE 802.1Q-2022, section 9):
//
//	 0             6             12      14      16      18
//	+-------------+-------------+-------+-------+-------+---------
//	| destination |   source    | TPID  |  TCI  | type  | payload      TPID 0x8100 (802.1Q) or 0x88a8 (802.1ad)
//	+-------------+-------------+-------+-------+-------+---------
//	                            |<- a VLAN tag->|
//
// A frame with more tags than that has the EtherType of its next tag. ok is false where the frame ends within the
// Ethernet header or within a tag; l3 is then the offset of the incomplete tag and etherType its TPID, both 0 without a
// whole Ethernet header.
func Ethernet(frame []byte, maxTags int) (l3 int, etherType uint16, ok bool) {
	if len(frame) < ether.HeaderLen {
		return 0, 0, false
	}
	l3, etherType = ether.HeaderLen, ether.Type(frame)
	for range maxTags {
		if etherType != ether.TypeVLAN && etherType != ether.TypeQinQ {
			break
		}
		if len(frame) < l3+TagLen {
			return l3, etherType, false
		}
		etherType = binary.BigEndian.Uint16(frame[l3+2:])
		l3 += TagLen
	}
	return l3, etherType, true
}

// VLAN returns the VLAN ID, 0 to 4095, of the outermost tag of frame; ok is false where frame has no whole tag.
func VLAN(frame []byte) (id uint16, ok bool) {
	l3, _, _ := Ethernet(frame, 1)
	if l3 != ether.HeaderLen+TagLen {
		return 0, false
	}
	return binary.BigEndian.Uint16(frame[ether.HeaderLen:]) & vlanMask, true
}
