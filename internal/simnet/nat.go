package simnet

import "net/netip"

// nat is a strict address translator (RFC 4787): a socket behind it has one port outside for all destinations
// (endpoint-independent mapping), and receives only from endpoints that it has sent to (address and port-dependent
// filtering).
type nat struct {
	outside  netip.Addr
	ports    map[netip.AddrPort]netip.AddrPort // a socket behind it -> its endpoint outside
	sockets  map[netip.AddrPort]netip.AddrPort // the reverse of ports
	answered map[flow]bool
}

// flow is a direction between two sockets.
type flow struct{ from, to netip.AddrPort }

// SetNAT puts the given hosts behind a translator with the address outside: other hosts see that address, and can only
// reply to them. Mappings do not expire until SetNAT is called again.
func (n *Network) SetNAT(outside netip.Addr, hosts ...netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := &nat{
		outside: outside, ports: map[netip.AddrPort]netip.AddrPort{}, sockets: map[netip.AddrPort]netip.AddrPort{},
		answered: map[flow]bool{},
	}
	for _, h := range hosts {
		n.nats[h] = t
	}
	n.outsides[outside] = t
}

// leave returns the endpoint outside of from, for a datagram to another address, and records the mapping.
func (t *nat) leave(from, to netip.AddrPort) netip.AddrPort {
	seen, known := t.ports[from]
	if !known {
		seen = netip.AddrPortFrom(t.outside, uint16(40000+len(t.ports)))
		t.ports[from], t.sockets[seen] = seen, from
	}
	t.answered[flow{to, seen}] = true
	return seen
}

// enter returns the socket that receives a datagram to an address of the translator; it is not valid if none does.
func (t *nat) enter(from, to netip.AddrPort) netip.AddrPort {
	if !t.answered[flow{from, to}] {
		return netip.AddrPort{}
	}
	return t.sockets[to]
}
