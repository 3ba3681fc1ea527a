package sieve

import (
	"net/netip"
)

// The messages of memberlist v0.7.0 (net.go). Its encoder writes a struct as a map with the names of the fields in
// alphabetical order.

// ping reads a ping.
func (r *reader) ping() {
	r.fields(5)
	r.key("Node")
	r.node()
	r.key("SeqNo")
	r.uint(maxUint32)
	r.source()
}

// source reads the sender of a ping: an address, a name and a port, which agree.
func (r *reader) source() {
	r.key("SourceAddr")
	addr := r.addr()
	r.key("SourceNode")
	name := r.node()
	r.key("SourcePort")
	r.agree(name, addr, r.port())
}

// indirectPing reads a request to ping a third node.
func (r *reader) indirectPing() {
	r.fields(8)
	r.key("Nack")
	r.bool()
	r.key("Node")
	name := r.node()
	r.key("Port")
	port := r.port()
	r.key("SeqNo")
	r.uint(maxUint32)
	r.source()
	r.key("Target")
	r.agree(name, r.addr(), port)
}

// ack reads the answer to a ping.
func (r *reader) ack() {
	r.fields(2)
	r.key("Payload")
	r.bytes(maxPayload, errPayload)
	r.key("SeqNo")
	r.uint(maxUint32)
}

// nack reads the answer to an indirect ping without an ack.
func (r *reader) nack() {
	r.fields(1)
	r.key("SeqNo")
	r.uint(maxUint32)
}

// errorText reads the answer on a stream that could not be read.
func (r *reader) errorText() {
	r.fields(1)
	r.key("Error")
	r.text(maxError, errPayload)
}

// accusation reads news that a node is suspect or dead.
func (r *reader) accusation() {
	r.fields(3)
	r.key("From")
	r.node()
	r.incarnation()
	r.key("Node")
	r.node()
}

// alive reads news that a node is alive.
func (r *reader) alive() {
	r.fields(6)
	r.key("Addr")
	addr := r.addr()
	r.incarnation()
	r.key("Meta")
	r.bytes(maxMeta, errMeta)
	r.key("Node")
	name := r.node()
	r.key("Port")
	r.agree(name, addr, r.port())
	r.versions()
}

// pushPull reads an exchange of states: a header, the nodes, and the state of weft's channels, which is opaque to memberlist.
func (r *reader) pushPull() error {
	r.fields(3)
	r.key("Join")
	r.bool()
	r.key("Nodes")
	nodes := r.int()
	r.key("UserStateLen")
	length := r.int()
	if nodes > MaxNodes {
		r.fail(errValue)
	}
	for ; nodes > 0 && r.err == nil; nodes-- {
		r.nodeState()
	}
	if r.err == nil && length != uint64(len(r.b)) {
		return errUserState
	}
	return r.err
}

// nodeState reads a node in an exchange of states.
func (r *reader) nodeState() {
	const states = 4 // alive, suspect, dead, left
	r.fields(7)
	r.key("Addr")
	addr := r.addr()
	r.incarnation()
	r.key("Meta")
	r.bytes(maxMeta, errMeta)
	r.key("Name")
	name := r.node()
	r.key("Port")
	r.agree(name, addr, r.port())
	r.key("State")
	if r.int() >= states {
		r.fail(errValue)
	}
	r.versions()
}

// incarnation reads an incarnation. memberlist starts at 1. It would store a node of incarnation 0, but report it to no
// delegate.
func (r *reader) incarnation() {
	r.key("Incarnation")
	if r.uint(uint64(r.highest)) == 0 {
		r.fail(errValue)
	}
}

// versions reads the versions that a node speaks: the lowest, the highest and the present one of memberlist's protocol, then
// of the delegate's. One node with a range that does not hold the present version of the others would end all exchanges of state.
func (r *reader) versions() {
	const (
		count   = 6
		present = 2 // memberlist.ProtocolVersion2Compatible
	)
	r.key("Vsn")
	v := r.bytes(count, errVersions)
	if r.err != nil {
		return
	}
	if len(v) != count || v[0] == 0 || v[0] > present || v[1] < present || v[2] != present || v[3] != 0 || v[5] != 0 {
		r.fail(errVersions)
	}
}

// port reads a port.
func (r *reader) port() uint16 {
	p := r.uint(1<<16 - 1)
	if p == 0 {
		r.fail(errValue)
	}
	return uint16(p)
}

// addr reads an IP address.
func (r *reader) addr() netip.Addr {
	a, ok := netip.AddrFromSlice(r.bytes(16, errAddr))
	if !ok {
		r.fail(errAddr)
	}
	return a.Unmap()
}

// agree refuses an address that is not the one in the name of its node.
func (r *reader) agree(name netip.AddrPort, addr netip.Addr, port uint16) {
	if name != netip.AddrPortFrom(addr, port) {
		r.fail(errAddr)
	}
}

// node reads the name of a node, as mesh makes it: the ID, "@", and the gossip address. It returns the address.
func (r *reader) node() netip.AddrPort {
	const longest = idDigits + 1 + len("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")
	text := r.text(longest, errName)
	if r.err != nil {
		return netip.AddrPort{}
	}
	at, ok := parseName(text)
	if !ok {
		r.fail(errName)
	}
	return at
}

// idDigits is how many hexadecimal digits an ID has.
const idDigits = 16

// parseName returns the address in a node's name. Of all spellings of a name only the canonical one is accepted: memberlist
// would take two spellings for two nodes.
func parseName(text []byte) (at netip.AddrPort, ok bool) {
	if len(text) <= idDigits || text[idDigits] != '@' {
		return at, false
	}
	for _, c := range text[:idDigits] {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return at, false
		}
	}
	at, err := netip.ParseAddrPort(string(text[idDigits+1:]))
	if err != nil || at.Port() == 0 || at.Addr().Zone() != "" || at.Addr().Is4In6() {
		return at, false
	}
	var canonical [64]byte
	return at, string(at.AppendTo(canonical[:0])) == string(text[idDigits+1:])
}
