package toobig

import (
	"encoding/binary"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weft/internal/ether"
	"weft/internal/packet"
)

// An error quotes as much of the packet as fits into a message that every host accepts: 576 bytes (RFC 1812, section
// 4.3.2.3) and 1,280 (RFC 4443, section 3.2).
const (
	maxReplyIPv4 = 576
	maxReplyIPv6 = minIPv6
	icmpLen      = 8

	replyTTL = 64
	replyTOS = 0xc0 // internetwork control (RFC 1812, section 4.3.2.5)
)

// Reply builds a frame that informs the sender of frame that the MTU to its destination is mtu bytes: ICMP destination
// unreachable, fragmentation needed (RFC 1191), or ICMPv6 packet too big (RFC 4443, section 3.2). Its source is the
// packet's destination, with the same MAC address and VLAN tags. ok is false if Classify does not return NeedsReply.
//
// Of a superframe, frame should be the headers and the payload of the first segment. If the packet's length field
// exceeds the length of frame, the quoted header has the real length: hosts ignore messages about packets that fit.
//
// The MTU for an IPv6 host is never below 1,280, as the host would ignore it (RFC 8201, section 4). On a path with a
// smaller MTU, packets of up to 1,280 bytes have to be carried in another way.
func Reply(frame []byte, mtu int) (reply []byte, ok bool) {
	if Classify(frame, mtu) != NeedsReply {
		return nil, false
	}
	p, _ := parse(frame)
	var parts []gopacket.SerializableLayer
	if p.version == 4 {
		parts = p.replyIPv4(max(p.room(mtu), minIPv4))
	} else {
		parts = p.replyIPv6(max(p.room(mtu), minIPv6))
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, parts...)
	if err != nil {
		return nil, false
	}
	return append(p.replyLink(), buf.Bytes()...), true
}

// replyLink returns the Ethernet header of the reply, with the same tags.
func (p *ipFrame) replyLink() []byte {
	link := make([]byte, 0, maxReplyIPv6+ether.HeaderLen+maxTags*packet.TagLen)
	link = append(link, p.link[6:12]...)
	link = append(link, p.link[:6]...)
	return append(link, p.link[12:]...)
}

func (p *ipFrame) replyIPv4(mtu int) []gopacket.SerializableLayer {
	src, dst := p.addresses()
	quote := p.quote(maxReplyIPv4 - packet.IPv4MinLen - icmpLen)
	declared := int(binary.BigEndian.Uint16(quote[packet.IPv4Length:]))
	if held := len(p.ip); declared > held || declared == 0 {
		binary.BigEndian.PutUint16(quote[packet.IPv4Length:], uint16(min(held, 1<<16-1)))
		putChecksum(quote[:p.header])
	}
	return []gopacket.SerializableLayer{
		&layers.IPv4{
			Version: 4, TTL: replyTTL, TOS: replyTOS, Protocol: layers.IPProtocolICMPv4, Flags: layers.IPv4DontFragment,
			SrcIP: dst.AsSlice(), DstIP: src.AsSlice(),
		},
		&layers.ICMPv4{
			TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodeFragmentationNeeded),
			Seq:      uint16(min(mtu, 1<<16-1)), // next-hop MTU (RFC 1191, section 4)
		},
		gopacket.Payload(quote),
	}
}

func (p *ipFrame) replyIPv6(mtu int) []gopacket.SerializableLayer {
	src, dst := p.addresses()
	quote := p.quote(maxReplyIPv6 - packet.IPv6Len - icmpLen)
	payload := len(p.ip) - packet.IPv6Len
	if declared := int(binary.BigEndian.Uint16(quote[packet.IPv6Length:])); declared > payload || declared == 0 {
		binary.BigEndian.PutUint16(quote[packet.IPv6Length:], uint16(min(payload, 1<<16-1)))
	}
	network := &layers.IPv6{
		Version: 6, HopLimit: replyTTL, NextHeader: layers.IPProtocolICMPv6, SrcIP: dst.AsSlice(), DstIP: src.AsSlice(),
	}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypePacketTooBig, 0)}
	_ = icmp.SetNetworkLayerForChecksum(network) // fails only for other layers than IP
	return []gopacket.SerializableLayer{
		network, icmp,
		gopacket.Payload(binary.BigEndian.AppendUint32(nil, uint32(mtu))),
		gopacket.Payload(quote),
	}
}

// quote returns a copy of at most the first limit bytes of the packet.
func (p *ipFrame) quote(limit int) []byte {
	return append([]byte(nil), p.ip[:min(len(p.ip), limit)]...)
}
