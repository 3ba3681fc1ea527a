package simnet

import "net/netip"

// nat is an address translator of the strict kind: a socket behind it has one port outside, whatever it sends to (RFC
// 4787: endpoint-independent mapping), and lets in only what comes from where it has sent to (address and port-dependent
// filtering).
type nat struct {
	outside  netip.Addr
	ports    map[netip.AddrPort]netip.AddrPort // a socket behind it -> what others see of it
	sockets  map[netip.AddrPort]netip.AddrPort // the other way round
	answered map[flow]bool
}

// flow is a direction between two sockets.
type flow struct{ from, to netip.AddrPort }

// SetNAT puts the given hosts behind a translator: others see outside in their place, and reach them only in answer. It
// forgets nothing until it is set again.
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

// leave returns from as those beyond the translator of its host see it, after a datagram to another address has passed.
func (t *nat) leave(from, to netip.AddrPort) netip.AddrPort {
	seen, known := t.ports[from]
	if !known {
		seen = netip.AddrPortFrom(t.outside, uint16(40000+len(t.ports)))
		t.ports[from], t.sockets[seen] = seen, from
	}
	t.answered[flow{to, seen}] = true
	return seen
}

// enter returns the socket for which a datagram to an address of the translator is, not valid where it is for none.
func (t *nat) enter(from, to netip.AddrPort) netip.AddrPort {
	if !t.answered[flow{from, to}] {
		return netip.AddrPort{}
	}
	return t.sockets[to]
}
