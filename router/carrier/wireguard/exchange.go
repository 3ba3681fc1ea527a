package wireguard

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/curve25519"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"weft/internal/peer"
)

// Times between the messages of an Exchange that is not complete: doubled after each.
const (
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

// version is the only version of messages.
const version = 1

// shareLen is the length of a node's part of the preshared key, and macLen that of a proof, in bytes.
const (
	shareLen = 32
	macLen   = sha256.Size
)

// MessageLen is the length of a message in bytes.
const MessageLen = 1 + 1 + 2 + wgtypes.KeyLen + shareLen + macLen

// Bits of the flags of a message.
const (
	flagProven   = 1 << 0 // the sender has had a valid proof of the receiver's offer
	flagComplete = 1 << 1 // and knows the same of the receiver: it needs no answer
)

// Errors of Exchange.Receive.
var (
	ErrMessage = errors.New("wireguard: not a message of a tunnel")
	ErrVersion = errors.New("wireguard: message of another version")
	ErrProof   = errors.New("wireguard: the peer does not own the key that it offers")
)

// offer is what one node sends the other.
type offer struct {
	public wgtypes.Key
	share  [shareLen]byte
	port   uint16
}

// Exchange is that of two nodes: each sends the other its public key, its port and its part of the preshared key, and proves with the
// other's offer that it owns the private key. It has no clock and does no I/O; messages go through the session of both nodes, which
// authenticates and seals them. It is owned by one goroutine.
//
//	 0   1       2      4            36                       68
//	| 1 | flags | port | public key | part of preshared key | proof: HMAC-SHA256, or zeros before the first offer of the other
type Exchange struct {
	self, peer peer.ID
	private    wgtypes.Key
	own, other offer
	known      bool // other is set
	proven     bool // the other node has proven its offer, with the present one of this node
	complete   bool // and has said the same
	next       time.Time
	answered   time.Time
	pause      time.Duration
}

// NewExchange returns an Exchange that begins with Next. share is random, and never used again.
func NewExchange(self, other peer.ID, private wgtypes.Key, port uint16, share [32]byte) *Exchange {
	return &Exchange{self: self, peer: other, private: private, own: offer{private.PublicKey(), share, port}}
}

// Renew begins anew with another part of the preshared key, and perhaps another port.
func (e *Exchange) Renew(port uint16, share [32]byte) {
	e.own.port, e.own.share = port, share
	e.again()
}

// again makes the exchange incomplete.
func (e *Exchange) again() {
	e.proven, e.complete, e.next, e.answered, e.pause = false, false, time.Time{}, time.Time{}, 0
}

// Next returns the message that is due at now; nil: none.
func (e *Exchange) Next(now time.Time) []byte {
	if e.proven && e.complete || now.Before(e.next) {
		return nil
	}
	e.pause = min(max(2*e.pause, firstPause), longestPause)
	e.next = now.Add(e.pause)
	return e.message()
}

// message returns this node's offer.
func (e *Exchange) message() []byte {
	flags := byte(0)
	if e.proven {
		flags |= flagProven
	}
	if e.Complete() {
		flags |= flagComplete
	}
	b := append(make([]byte, 0, MessageLen), version, flags)
	b = binary.BigEndian.AppendUint16(b, e.own.port)
	b = append(append(b, e.own.public[:]...), e.own.share[:]...)
	proof := e.proof(e.self, e.own, e.other)
	if proof == nil {
		proof = make([]byte, macLen)
	}
	return append(b, proof...)
}

// proof returns the proof of a node for its offer, after the other's offer, which needs one of the two private keys. It is nil if there can
// be none.
func (e *Exchange) proof(of peer.ID, its, others offer) []byte {
	shared, err := curve25519.X25519(e.private[:], e.other.public[:])
	if !e.known || err != nil { // a key of low order, which has no owner
		return nil
	}
	h := hmac.New(sha256.New, shared)
	h.Write([]byte("weft wireguard 1"))
	h.Write(of[:])
	for _, o := range []offer{its, others} {
		h.Write(o.public[:])
		h.Write(o.share[:])
		h.Write(binary.BigEndian.AppendUint16(nil, o.port))
	}
	return h.Sum(nil)
}

// Receive handles a message of the peer at now, and returns the answer; nil: none. The errors are ErrMessage, ErrVersion and ErrProof.
func (e *Exchange) Receive(message []byte, now time.Time) (answer []byte, err error) {
	switch {
	case len(message) < 1:
		return nil, ErrMessage
	case message[0] != version:
		return nil, ErrVersion
	case len(message) != MessageLen:
		return nil, ErrMessage
	}
	got := offer{port: binary.BigEndian.Uint16(message[2:])}
	copy(got.public[:], message[4:])
	copy(got.share[:], message[4+wgtypes.KeyLen:])
	proof := message[MessageLen-macLen:]
	switch {
	case got.port == 0 || got.public == e.own.public:
		return nil, fmt.Errorf("%w: port %d, key %s", ErrMessage, got.port, got.public)
	case !e.known || got != e.other:
		e.other, e.known = got, true
		e.again()
	}
	before := [2]bool{e.proven, e.Complete()}
	switch {
	case hmac.Equal(proof, e.proof(e.peer, got, e.own)):
		e.proven, e.complete = true, message[1]&flagProven != 0
	case !e.proven && !bytes.Equal(proof, make([]byte, macLen)):
		err = ErrProof // or one after an earlier offer of this node
	}
	news := before != [2]bool{e.proven, e.Complete()}
	if e.Complete() && message[1]&flagComplete != 0 || !news && now.Sub(e.answered) < firstPause {
		return nil, err
	}
	e.answered, e.next = now, now.Add(max(e.pause, firstPause))
	return e.message(), err
}

// Complete reports whether both nodes have proven their offers to each other.
func (e *Exchange) Complete() bool { return e.proven && e.complete }

// Proven reports whether the peer has proven its offer, and so has what Tunnel returns.
func (e *Exchange) Proven() bool { return e.proven }

// Tunnel returns the keys of the peer and its port. It is that of the present offers; see Proven.
func (e *Exchange) Tunnel() (t Tunnel, port uint16) {
	lower, higher := e.own, e.other
	if bytes.Compare(e.self[:], e.peer[:]) > 0 {
		lower, higher = higher, lower
	}
	h := sha256.New()
	h.Write([]byte("weft wireguard preshared key 1"))
	for _, o := range []offer{lower, higher} {
		h.Write(o.share[:])
		h.Write(o.public[:])
	}
	return Tunnel{Public: e.other.public, Preshared: wgtypes.Key(h.Sum(nil))}, e.other.port
}
