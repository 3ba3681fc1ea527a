package ipam

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"weft/internal/bytesreader"
	"weft/internal/peer"
	"weft/ipam/paxos"
)

// appendPrefix appends cidr: the length of its address in bytes, the address, its bits in one byte.
func appendPrefix(dst []byte, cidr netip.Prefix) []byte {
	addr := cidr.Addr().AsSlice()
	dst = append(dst, byte(len(addr)))
	dst = append(dst, addr...)
	return append(dst, byte(cidr.Bits()))
}

func cutPrefix(b []byte) (cidr netip.Prefix, rest []byte, err error) {
	if len(b) > 0 {
		if n := 1 + int(b[0]); len(b) > n {
			if addr, ok := netip.AddrFromSlice(b[1:n]); ok {
				cidr, rest = netip.PrefixFrom(addr, int(b[n])), b[n+1:]
			}
		}
	}
	if !cidr.IsValid() {
		return netip.Prefix{}, nil, fmt.Errorf("%w: no range", ErrMessage)
	}
	return cidr, rest, nil
}

// appendSection appends one section of a gossip message.
func appendSection(dst []byte, kind byte, payload []byte) []byte {
	dst = append(dst, kind)
	dst = binary.AppendUvarint(dst, uint64(len(payload)))
	return append(dst, payload...)
}

func cutSection(b []byte) (kind byte, payload, rest []byte, err error) {
	n, used := binary.Uvarint(b[1:])
	if used <= 0 || n > uint64(len(b)-1-used) {
		return 0, nil, nil, fmt.Errorf("%w: section cut short", ErrMessage)
	}
	payload = b[1+used:]
	return b[0], payload[:n], payload[n:], nil
}

// messageKind is the kind of a unicast message. The zero kind is invalid.
type messageKind byte

// Kinds of unicast message; the last three are reclaimMessages.
const (
	kindRequest  messageKind = 1 // a node without free addresses requests some of another
	kindReply    messageKind = 2 // the answer to a request or a handover
	kindHandover messageKind = 3 // tokens for their new owner: from a node that leaves, or from the proposer of a reclaim
	kindBallot   messageKind = 4 // prepare or accept, from a proposer to an acceptor
	kindAnswer   messageKind = 5 // the acceptor's state, as answer to a ballot
	kindCommit   messageKind = 6 // the decided value and the tokens, from the proposer
)

// ofReclaim reports whether messages of the kind are reclaimMessages.
func (k messageKind) ofReclaim() bool { return k >= kindBallot && k <= kindCommit }

// outcome is the result of a request or a handover. The zero outcome is invalid.
type outcome byte

const (
	granted  outcome = 1 // the ring holds the tokens
	none     outcome = 2 // no free address there
	leased   outcome = 3 // the claimed address is leased there; the reply names the holder
	notOwner outcome = 4 // another node owns the address; the ring holds its token, if that is known
	owning   outcome = 5 // the requester owns more than it knows; the ring holds its tokens

	unanswered outcome = 0xff // not sent, or not answered in time; never on the wire
)

// unicast is a request, a reply or a handover; numbers are unsigned varints (encoding/binary):
//
//	+---------+------+--------------+-------+-----+-----+---------+-------+---------------+--------+------+
//	| version | kind | id           | claim | low | end | outcome | count | holder length | holder | ring |
//	| 1 byte  | byte | 8 bytes, big | byte  |     |     | byte    |       |               |        | rest |
//	|         |      | endian       |       |     |     |         |       |               |        |      |
//	+---------+------+--------------+-------+-----+-----+---------+-------+---------------+--------+------+
//
// Ring is an encoded ring of the range in question: without tokens in a request, with the tokens in a reply or handover.
type unicast struct {
	kind     messageKind
	id       uint64  // the same in a request or handover and its reply
	claim    bool    // of a request: exactly the address at low is requested, not as many as possible
	low, end uint64  // of a request: the offsets to grant from
	outcome  outcome // of a reply
	count    uint64  // of a reply: how many addresses are free there; of a request: how many the requester knows to own
	holder   string  // of a reply: the holder of the address
	ring     []byte
}

func (m *unicast) encode() []byte {
	b := []byte{messageVersion, byte(m.kind)}
	b = binary.BigEndian.AppendUint64(b, m.id)
	claim := byte(0)
	if m.claim {
		claim = 1
	}
	b = append(b, claim)
	b = binary.AppendUvarint(b, m.low)
	b = binary.AppendUvarint(b, m.end)
	b = append(b, byte(m.outcome))
	b = binary.AppendUvarint(b, m.count)
	b = binary.AppendUvarint(b, uint64(len(m.holder)))
	b = append(b, m.holder...)
	return append(b, m.ring...)
}

func decodeUnicast(b []byte) (m unicast, err error) {
	r := bytesreader.Reader{B: b}
	version := r.Byte()
	m.kind = messageKind(r.Byte())
	if id := r.Bytes(8); len(id) == 8 {
		m.id = binary.BigEndian.Uint64(id)
	}
	m.claim = r.Byte() == 1
	m.low, m.end = r.Uvarint(), r.Uvarint()
	m.outcome = outcome(r.Byte())
	m.count = r.Uvarint()
	n := r.Uvarint()
	if r.Short || version != messageVersion || n > uint64(len(r.B)) {
		return unicast{}, fmt.Errorf("%w: unicast of %d bytes", ErrMessage, len(b))
	}
	m.holder, m.ring = string(r.Bytes(int(n))), r.B
	return m, nil
}

// reclaimMessage is a message between the proposer and an acceptor of a reclaim instance:
//
//	+---------+------+------+---------+-----------+-------+-------+------+
//	| version | kind | dead | ballot  | new owner | alive | state | ring |
//	| byte    | byte | 8    | 8 + 8   | 8         | byte  |       | rest |
//	+---------+------+------+---------+-----------+-------+-------+------+
//
// Ballot is a round (big endian) and its proposer. State is as paxos.Acceptor.Append writes it. Ring holds all that the
// sender knows of the spans that the dead node owns, or has owned.
type reclaimMessage struct {
	kind     messageKind
	dead     peer.ID
	ballot   paxos.Ballot   // of a ballot
	newOwner peer.ID        // of a ballot: zero in prepare, the value in accept; of a commit: the decided value
	alive    bool           // of an answer: the acceptor reaches the node that is reported dead, and has promised nothing
	state    paxos.Acceptor // of an answer
	ring     []byte
}

func (m *reclaimMessage) encode() []byte {
	b := append([]byte{messageVersion, byte(m.kind)}, m.dead[:]...)
	b = binary.BigEndian.AppendUint64(b, m.ballot.Round)
	b = append(b, m.ballot.By[:]...)
	b = append(b, m.newOwner[:]...)
	alive := byte(0)
	if m.alive {
		alive = 1
	}
	b = m.state.Append(append(b, alive))
	return append(b, m.ring...)
}

func decodeReclaim(b []byte) (m reclaimMessage, err error) {
	const fixed = 2 + 8 + 8 + 8 + 8 + 1
	r := bytesreader.Reader{B: b}
	head := r.Bytes(fixed)
	if len(head) < fixed || head[0] != messageVersion {
		return m, fmt.Errorf("%w: reclaim message of %d bytes", ErrMessage, len(b))
	}
	m.kind, m.dead = messageKind(head[1]), peer.ID(head[2:])
	m.ballot = paxos.Ballot{Round: binary.BigEndian.Uint64(head[10:]), By: peer.ID(head[18:])}
	m.newOwner, m.alive = peer.ID(head[26:]), head[34] == 1
	if m.state, m.ring, err = paxos.DecodeAcceptor(r.B); err != nil || m.ballot.Round > paxos.MaxCount || m.dead.IsZero() {
		return m, fmt.Errorf("%w: reclaim message of %d bytes", ErrMessage, len(b))
	}
	return m, nil
}
