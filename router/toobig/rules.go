package toobig

import (
	"encoding/binary"
	"net/netip"

	"weft/internal/ether"
)

// IP protocols that decide whether a packet may be answered.
const (
	protoHopByHop    = 0
	protoICMP        = 1
	protoRouting     = 43
	protoFragment    = 44
	protoAuth        = 51
	protoICMPv6      = 58
	protoDestOptions = 60
)

// mayReply reports whether an ICMP error may be sent about the packet (RFC 1122, section 3.2.2; RFC 1812, section
// 4.3.2.7; RFC 4443, section 2.4 e), and would be of use.
func (p *packet) mayReply(mtu int) bool {
	if ether.Destination(p.link).IsMulticast() || ether.Source(p.link).IsMulticast() || ether.Source(p.link).IsZero() {
		return false
	}
	if src, dst := p.addresses(); !isHost(src) || !isHost(dst) {
		return false
	}
	if p.version == 4 {
		return p.fragmentField()&maskOffset == 0 && !p.isErrorIPv4()
	}
	// Nobody sends less than 1,280 bytes because he was asked to (RFC 8201, section 4): asking is of no use.
	return (p.room(mtu) >= minIPv6 || len(p.ip) > minIPv6) && !p.isErrorIPv6()
}

// isHost reports whether a is the address of one host, as far as it shows.
func isHost(a netip.Addr) bool {
	if a.Is4() && a.As4()[0] >= 240 {
		return false // class E, and 255.255.255.255
	}
	return !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback()
}

// isErrorIPv4 reports whether the packet is an ICMP error, or may be one for all that is there.
func (p *packet) isErrorIPv4() bool {
	if p.ip[9] != protoICMP {
		return false
	}
	if len(p.ip) <= p.header {
		return true
	}
	switch p.ip[p.header] {
	case 3, 4, 5, 11, 12: // unreachable, source quench, redirect, time exceeded, parameter problem
		return true
	default:
		return false
	}
}

// isErrorIPv6 reports whether the packet is an ICMPv6 error or redirect, a fragment other than the first, or whether
// it cannot be known for all that is there.
func (p *packet) isErrorIPv6() bool {
	proto, at := p.ip[6], ipv6Len
	for {
		rest := p.ip[min(at, len(p.ip)):]
		switch proto {
		case protoICMPv6:
			return len(rest) == 0 || rest[0] < 128 || rest[0] == 137
		case protoHopByHop, protoRouting, protoDestOptions, protoFragment, protoAuth:
			if len(rest) < 8 {
				return true
			}
		default:
			return false
		}
		switch proto {
		case protoFragment: // RFC 8200, section 4.5
			if binary.BigEndian.Uint16(rest[2:])&0xfff8 != 0 {
				return true
			}
			at += 8
		case protoAuth: // RFC 4302, section 2.2: counted in 4 bytes
			at += (int(rest[1]) + 2) * 4
		default:
			at += (int(rest[1]) + 1) * 8
		}
		proto = rest[0]
	}
}
