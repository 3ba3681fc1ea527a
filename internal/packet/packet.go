// Package packet finds the headers of a frame: it walks over the VLAN tags of an Ethernet frame and over the extension
// headers of an IPv6 packet, and names the offsets and protocol numbers that the callers read.
//
// It is pure: every function works on a byte slice, never reads beyond it, never allocates and never panics, whatever
// the bytes are. The number of tags and of extension headers is bounded, so the cost of a frame is too.
package packet

// Protocol is an IP protocol number: the protocol field of IPv4 and the next header field of IPv6 (IANA "Assigned
// Internet Protocol Numbers").
type Protocol uint8

// Protocol numbers. HopByHop to DestinationOptions are IPv6 extension headers (RFC 8200, section 4).
const (
	HopByHop           Protocol = 0   // hop-by-hop options (RFC 8200, section 4.3)
	ICMP               Protocol = 1   // ICMP for IPv4 (RFC 792)
	TCP                Protocol = 6   // RFC 9293
	UDP                Protocol = 17  // RFC 768
	Routing            Protocol = 43  // routing header (RFC 8200, section 4.4)
	Fragment           Protocol = 44  // fragment header (RFC 8200, section 4.5)
	ESP                Protocol = 50  // encapsulating security payload (RFC 4303): the rest of the packet is encrypted
	AH                 Protocol = 51  // authentication header (RFC 4302)
	ICMPv6             Protocol = 58  // RFC 4443
	NoNextHeader       Protocol = 59  // nothing follows (RFC 8200, section 4.7)
	DestinationOptions Protocol = 60  // destination options (RFC 8200, section 4.6)
	SCTP               Protocol = 132 // RFC 9260
)
