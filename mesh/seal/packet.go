package seal

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"weft/internal/peer"
)

// Type is the first byte of a packet: the version in the upper 4 bits, the kind in the lower ones.
type Type byte

// The types of packets. The zero Type is invalid.
const (
	Packet    Type = Version<<4 | 1 // body: a packet of memberlist's
	Challenge Type = Version<<4 | 2 // body: a Proof, with the instance that has to answer
	Answer    Type = Version<<4 | 3 // body: the Proof of the challenge, with the instance that has asked
)

// Header is what the sender of a packet states, inside the seal.
//
//	 0      1          25          33         41        49       57         65                 n-16           n
//	+------+----------+-----------+----------+---------+--------+----------+-------------------+--------------+
//	| type | nonce    | sender    | instance | counter | uptime | receiver | body              | tag          |
//	| 1    | 24       | 8         | 8        | 8       | 8      | 8        |                   | 16           |
//	+------+----------+-----------+----------+---------+--------+----------+-------------------+--------------+
//	                  |<------------------------- sealed ------------------------------------->|
type Header struct {
	Sender   peer.ID
	Instance uint64        // of the sending process: random at its start
	Counter  uint64        // of the packet: grows with every packet of the instance
	Uptime   time.Duration // of the sending process, in whole milliseconds, by its monotonic clock
	Receiver peer.ID       // zero: not known to the sender
}

const (
	nonceLen  = chacha20poly1305.NonceSizeX
	tagLen    = chacha20poly1305.Overhead
	headerLen = 5 * 8
)

// Overhead is how many bytes a packet has beside its body.
const Overhead = 1 + nonceLen + headerLen + tagLen

// maxUptime, 34 years, bounds the uptimes in bytes from outside, so that no sum with them overflows.
const maxUptime = time.Duration(1<<40) * time.Millisecond

// Seal returns the packet with a header and a body. The nonce is random: with 192 bits it never repeats, even in a copy
// of a running process.
func (k *Keys) Seal(t Type, h Header, body []byte) []byte {
	var nonce [nonceLen]byte
	_, _ = rand.Read(nonce[:]) // never fails
	return k.sealWith(nonce, t, h, body)
}

func (k *Keys) sealWith(nonce [nonceLen]byte, t Type, h Header, body []byte) []byte {
	b := make([]byte, 0, Overhead+len(body))
	b = append(append(b, byte(t)), nonce[:]...)
	plain := make([]byte, 0, headerLen+len(body))
	plain = append(plain, h.Sender[:]...)
	plain = binary.BigEndian.AppendUint64(plain, h.Instance)
	plain = binary.BigEndian.AppendUint64(plain, h.Counter)
	plain = binary.BigEndian.AppendUint64(plain, uint64(h.Uptime.Milliseconds()))
	plain = append(plain, h.Receiver[:]...)
	plain = append(plain, body...)
	return k.packet.Seal(b, nonce[:], plain, k.additional(t))
}

func (k *Keys) additional(t Type) []byte { return append([]byte{byte(t)}, k.context...) }

// Open opens a packet with the first of the keys that fits, and returns which one that is. The body does not share
// memory with the packet. Errors wrap ErrVersion, ErrMalformed or ErrKey.
func Open(keys []*Keys, packet []byte) (t Type, h Header, body []byte, key int, err error) {
	if len(packet) == 0 || packet[0]>>4 != Version {
		return 0, Header{}, nil, 0, ErrVersion
	}
	t = Type(packet[0])
	if len(packet) < Overhead || t < Packet || t > Answer {
		return 0, Header{}, nil, 0, fmt.Errorf("%w: packet of type %02x with %d bytes", ErrMalformed, byte(t), len(packet))
	}
	nonce, sealed := packet[1:1+nonceLen], packet[1+nonceLen:]
	for i, k := range keys {
		plain, err := k.packet.Open(nil, nonce, sealed, k.additional(t))
		if err != nil {
			continue
		}
		h, err := parseHeader(plain)
		return t, h, plain[headerLen:], i, err
	}
	return 0, Header{}, nil, 0, ErrKey
}

func parseHeader(b []byte) (Header, error) {
	uptime, err := parseUptime(b[24:])
	return Header{
		Sender: peer.ID(b), Instance: binary.BigEndian.Uint64(b[8:]), Counter: binary.BigEndian.Uint64(b[16:]), Uptime: uptime,
		Receiver: peer.ID(b[32:]),
	}, err
}

func parseUptime(b []byte) (time.Duration, error) {
	ms := binary.BigEndian.Uint64(b)
	if ms > uint64(maxUptime.Milliseconds()) {
		return 0, fmt.Errorf("%w: an uptime of %d ms", ErrMalformed, ms)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// Nonce is the random part of a challenge.
type Nonce [16]byte

// Proof is the body of a Challenge and of its Answer.
//
//	 0          8                24
//	+----------+----------------+
//	| instance | nonce          |
//	+----------+----------------+
type Proof struct {
	Instance uint64 // of the process that the packet is for
	Nonce    Nonce
}

// Append appends the wire form of p to b.
func (p Proof) Append(b []byte) []byte {
	return append(binary.BigEndian.AppendUint64(b, p.Instance), p.Nonce[:]...)
}

// ParseProof parses the body of a Challenge or an Answer. Errors wrap ErrMalformed.
func ParseProof(b []byte) (Proof, error) {
	if len(b) != 8+len(Nonce{}) {
		return Proof{}, fmt.Errorf("%w: a proof of %d bytes", ErrMalformed, len(b))
	}
	return Proof{Instance: binary.BigEndian.Uint64(b), Nonce: Nonce(b[8:])}, nil
}
