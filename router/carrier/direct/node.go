package direct

import (
	"fmt"
	"net/netip"
)

// Node is what direct routing has to know about a node. Its zero value is a node that does not take part.
type Node struct {
	// Probes are the source addresses of its probes: at most one of each family, in its Share, and used for nothing else.
	Probes []netip.Addr
	// Link is the link-local IPv6 address of its underlay interface; not valid: it has none.
	Link netip.Addr
	// Hosts are the addresses of the node itself in its Share. Packets to them go by the other carrier, as those from them do: firewalls
	// that follow connections have to see both directions.
	Hosts []netip.Addr
	// Share is what the node gives out to its pods. It is not published here: the ring has it.
	Share []netip.Prefix
}

// Kinds of addresses in the encoding.
const (
	kindProbe = 1
	kindLink  = 2
	kindHost  = 3
)

// maxEncoded is the length in bytes of the longest encoding: metadata of nodes is short.
const maxEncoded = 160

// Encode returns what a node publishes of n: for each address a byte for its kind, one for its length, and the address. It fails for a node
// with more addresses than fit.
func (n Node) Encode() (b []byte, err error) {
	add := func(kind byte, a netip.Addr) { b = append(append(b, kind, byte(a.BitLen()/8)), a.AsSlice()...) }
	for _, a := range n.Probes {
		add(kindProbe, a)
	}
	if n.Link.IsValid() {
		add(kindLink, n.Link)
	}
	for _, a := range n.Hosts {
		add(kindHost, a)
	}
	if len(b) > maxEncoded {
		return nil, fmt.Errorf("direct: the bridge has %d addresses in the ranges of the overlay, more than can be published", len(n.Hosts))
	}
	return b, nil
}

// Decode is the reverse of Encode, for a node with a share. What cannot be a part of a Node is left out, as are kinds of later builds; an
// encoding that is cut short is that of a node that does not take part.
func Decode(b []byte, share []netip.Prefix) Node {
	n := Node{Share: share}
	for len(b) > 0 {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return Node{}
		}
		kind, value := b[0], b[2:2+int(b[1])]
		b = b[2+len(value):]
		a, ok := netip.AddrFromSlice(value)
		if !ok {
			continue
		}
		switch {
		case kind == kindProbe && usable(a) && !n.probe(familyOf(a)).IsValid():
			n.Probes = append(n.Probes, a)
		case kind == kindLink && a.Is6() && a.IsLinkLocalUnicast():
			n.Link = a
		case kind == kindHost:
			n.Hosts = append(n.Hosts, a)
		}
	}
	return n
}

// probe returns the address of probes of a family; not valid if there is none.
func (n Node) probe(f family) netip.Addr {
	for _, a := range n.Probes {
		if familyOf(a) == f {
			return a
		}
	}
	return netip.Addr{}
}
