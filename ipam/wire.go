package ipam

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"weft/internal/bytesreader"
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

// appendSection appends one section of gossip.
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

// Kinds of unicast message.
const (
	kindAsk      = 1 // a node without space asks another for some
	kindReply    = 2 // the answer to an ask or a handover
	kindHandover = 3 // a node that leaves gives all it owns, or a decree gives what another one owned
	kindBallot   = 4 // see ballotMessage
	kindStand    = 5
	kindOver     = 6
)

// Outcomes of an ask or a handover.
const (
	granted  = 1 // the ring says what
	none     = 2 // nothing free there
	leased   = 3 // Holder holds the address that was claimed
	notOwner = 4 // the address is somebody else's; the ring says whose, if known
	owning   = 5 // the asker owns more than it knows; the ring says what
)

// unicast is a message from one node to another; numbers are unsigned varints (encoding/binary):
//
//	+---------+------+--------------+-------+-----+-----+---------+-------+---------------+--------+------+
//	| version | kind | id           | claim | low | end | outcome | count | holder length | holder | ring |
//	| 1 byte  | byte | 8 bytes, big | byte  |     |     | byte    |       |               |        | rest |
//	|         |      | endian       |       |     |     |         |       |               |        |      |
//	+---------+------+--------------+-------+-----+-----+---------+-------+---------------+--------+------+
//
// Ring is an encoded ring of the range in question: of an ask one without tokens, of an answer or handover its tokens.
type unicast struct {
	kind     byte
	id       uint64 // names an ask and its reply
	claim    bool   // of an ask: exactly low is wanted, not as much as can be had
	low, end uint64 // of an ask: the offsets to give from
	outcome  byte   // of a reply
	count    uint64 // of a reply: what the other has free in all; of an ask: what the asker knows to own in all
	holder   string // of a reply: who holds the address
	ring     []byte
}

func (m *unicast) encode() []byte {
	b := []byte{messageVersion, m.kind}
	b = binary.BigEndian.AppendUint64(b, m.id)
	claim := byte(0)
	if m.claim {
		claim = 1
	}
	b = append(b, claim)
	b = binary.AppendUvarint(b, m.low)
	b = binary.AppendUvarint(b, m.end)
	b = append(b, m.outcome)
	b = binary.AppendUvarint(b, m.count)
	b = binary.AppendUvarint(b, uint64(len(m.holder)))
	b = append(b, m.holder...)
	return append(b, m.ring...)
}

func decodeUnicast(b []byte) (m unicast, err error) {
	r := bytesreader.Reader{B: b}
	version := r.Byte()
	m.kind = r.Byte()
	if id := r.Bytes(8); len(id) == 8 {
		m.id = binary.BigEndian.Uint64(id)
	}
	m.claim = r.Byte() == 1
	m.low, m.end = r.Uvarint(), r.Uvarint()
	m.outcome = r.Byte()
	m.count = r.Uvarint()
	n := r.Uvarint()
	if r.Short || version != messageVersion || n > uint64(len(r.B)) {
		return unicast{}, fmt.Errorf("%w: unicast of %d bytes", ErrMessage, len(b))
	}
	m.holder, m.ring = string(r.Bytes(int(n))), r.B
	return m, nil
}
