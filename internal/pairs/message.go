package pairs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"weft/router/carrier"
	"weft/router/carrier/vxlan"
)

// version is the only version of messages.
const version = 1

// Kinds of messages.
const (
	kindRequest = 1
	kindOffer   = 2
)

// Lengths of messages in bytes.
const (
	headerLen  = 2
	requestLen = headerLen + 16
	offerLen   = headerLen + 2 + 4 + len(carrier.Token{})
)

// Errors of parse.
var (
	errMessage = errors.New("pairs: not a message about a pair")
	errVersion = errors.New("pairs: message of another version")
)

// Messages: a request of the node that begins, and the offer of the one that answers. All numbers are in network byte order.
//
//	 0         1      2        18
//	| version | 1    | from   |            from: the address from which it will send, IPv4 as ::ffff:a.b.c.d; zeros: a translator decides
//
//	 0         1      2   4     8       24
//	| version | 2    | 0 | VNI | token |

// Offer is what the node that answers gives the other one.
type Offer struct {
	VNI   uint32
	Token carrier.Token
}

// request returns the message that asks for an offer. from is not valid behind an address translator.
func request(from netip.Addr) []byte {
	b := []byte{version, kindRequest}
	if !from.IsValid() {
		return append(b, make([]byte, requestLen-headerLen)...)
	}
	addr := from.As16()
	return append(b, addr[:]...)
}

// message returns the message with the offer.
func (o Offer) message() []byte {
	b := []byte{version, kindOffer, 0, 0}
	return append(binary.BigEndian.AppendUint32(b, o.VNI), o.Token[:]...)
}

// parsed is a message: a request, or else an offer.
type parsed struct {
	isRequest bool
	from      netip.Addr // of a request; not valid: a translator decides
	offer     Offer
}

// parse reads a message. The errors are errMessage and errVersion.
func parse(b []byte) (m parsed, err error) {
	switch {
	case len(b) < headerLen:
		return m, errMessage
	case b[0] != version:
		return m, errVersion
	case b[1] == kindRequest && len(b) == requestLen:
		m.isRequest = true
		if from := netip.AddrFrom16([16]byte(b[headerLen:])).Unmap(); !from.IsUnspecified() {
			m.from = from
		}
		return m, nil
	case b[1] != kindOffer || len(b) != offerLen:
		return m, errMessage
	}
	m.offer = Offer{VNI: binary.BigEndian.Uint32(b[4:])}
	copy(m.offer.Token[:], b[8:])
	if o := m.offer; o.VNI == 0 || o.VNI > vxlan.MaxVNI {
		return m, fmt.Errorf("%w: VNI %d", errMessage, o.VNI)
	}
	return m, nil
}
