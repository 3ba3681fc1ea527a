// Package sieve decides which messages reach memberlist. memberlist handles what it receives in goroutines of its own: a
// panic there ends the process, and a message that it accepts may store a node, allocate memory or stop its exchanges of
// state. So memberlist gets only messages that it could have written itself, byte for byte
// (docs/adr/0040-a-sieve-before-memberlist.md).
//
// A message passes when it has the canonical encoding of memberlist v0.7.0 (the fields of its struct, in order, each number
// and length in its shortest form, nothing behind it) and the values that a weft node writes: names that are an ID and an
// address, addresses of 4 or 16 bytes that agree with the names, ports and incarnations above 0, versions that all nodes
// speak, metadata of at most 512 bytes. Encrypted, compressed and labeled messages, and compounds in compounds, are refused:
// weft seals whole messages itself, and does not compress.
//
// The functions are pure: they keep nothing, start nothing, do not panic, and may be called concurrently. They read each byte once, and
// allocate nothing in proportion to a number in the message.
package sieve

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// ErrRefused is wrapped by all errors of this package.
var ErrRefused = errors.New("sieve: not a message of a weft node's memberlist")

// The reasons for a refusal. They hold no bytes of the message: the sender controls those.
var (
	errEmpty     = fmt.Errorf("%w: empty", ErrRefused)
	errKind      = fmt.Errorf("%w: a kind of message that does not belong here", ErrRefused)
	errEncoding  = fmt.Errorf("%w: not the encoding that memberlist writes", ErrRefused)
	errTrailing  = fmt.Errorf("%w: further bytes behind the message", ErrRefused)
	errChecksum  = fmt.Errorf("%w: wrong checksum", ErrRefused)
	errCompound  = fmt.Errorf("%w: a compound with wrong lengths", ErrRefused)
	errName      = fmt.Errorf("%w: not the name of a node", ErrRefused)
	errAddr      = fmt.Errorf("%w: an address that differs from the name of its node", ErrRefused)
	errMeta      = fmt.Errorf("%w: metadata too long", ErrRefused)
	errVersions  = fmt.Errorf("%w: versions that not all nodes speak", ErrRefused)
	errValue     = fmt.Errorf("%w: a number out of range", ErrRefused)
	errPayload   = fmt.Errorf("%w: text or payload too long", ErrRefused)
	errUserState = fmt.Errorf("%w: a length that differs from what follows", ErrRefused)
)

// kind is the first byte of a message of memberlist's (net.go, messageType).
type kind byte

const (
	kindPing kind = iota
	kindIndirectPing
	kindAck
	kindSuspect
	kindAlive
	kindDead
	kindPushPull
	kindCompound
	kindUser
	kindCompressed
	kindEncrypted
	kindNack
	kindChecksum
	kindError
)

// MaxNodes is how many nodes one exchange of states may list. It is above what a node stores, so that no node is refused for
// the nodes that it knows.
const MaxNodes = 1 << 16

const (
	// maxMeta is memberlist.MetaMaxSize.
	maxMeta = 512
	// maxPayload bounds the payload of an ack; weft's is 8 bytes.
	maxPayload = 64
	// maxError bounds the text of an error.
	maxError = 1024
	// checksumHeader is the length in bytes of a checksum and its kind.
	checksumHeader = 1 + 4
)

// spareIncarnations is how many incarnations pass at any time. A node uses one for each change of its metadata, and for each time that
// it is thought dead.
const spareIncarnations = 1 << 30

// MaxIncarnation returns the highest incarnation that passes at now. Only a higher one refutes news of a node, so a node could not refute
// the highest number there is, and memberlist begins at 0 again. So the bound grows with the clock, one a second: a node can refute
// whatever has passed soon after. A node with a clock that is behind refuses news of such a node for that long.
func MaxIncarnation(now time.Time) uint32 {
	return uint32(min(max(now.Unix(), 0)+spareIncarnations, maxUint32-1))
}

// Packet checks a datagram: a ping, an indirect ping, an ack, a nack, news of a node that is suspect, alive or dead, a user
// message, or one compound of these; all of that also behind a checksum. highest is the highest incarnation that passes, see
// MaxIncarnation. Errors wrap ErrRefused.
func Packet(b []byte, highest uint32) error {
	if len(b) > 0 && kind(b[0]) == kindChecksum {
		if len(b) < checksumHeader || binary.BigEndian.Uint32(b[1:]) != crc32.ChecksumIEEE(b[checksumHeader:]) {
			return errChecksum
		}
		b = b[checksumHeader:]
	}
	if len(b) > 0 && kind(b[0]) == kindCompound {
		return compound(b[1:], highest)
	}
	return single(b, highest)
}

// compound checks the messages of a compound: their number (1 byte), the length of each (2 bytes, big endian), and they
// themselves.
func compound(b []byte, highest uint32) error {
	if len(b) == 0 || b[0] == 0 || len(b) < 1+2*int(b[0]) {
		return errCompound
	}
	n := int(b[0])
	lengths, rest := b[1:1+2*n], b[1+2*n:]
	for ; len(lengths) > 0; lengths = lengths[2:] {
		length := int(binary.BigEndian.Uint16(lengths))
		if length > len(rest) {
			return errCompound
		}
		if err := single(rest[:length], highest); err != nil {
			return err
		}
		rest = rest[length:]
	}
	if len(rest) > 0 {
		return errTrailing
	}
	return nil
}

// single checks one message of a packet.
func single(b []byte, highest uint32) error {
	if len(b) == 0 {
		return errEmpty
	}
	r := reader{b: b[1:], highest: highest}
	switch kind(b[0]) {
	case kindPing:
		r.ping()
	case kindIndirectPing:
		r.indirectPing()
	case kindAck:
		r.ack()
	case kindNack:
		r.nack()
	case kindAlive:
		r.alive()
	case kindSuspect, kindDead:
		r.accusation()
	case kindUser:
		return nil // opaque to memberlist
	default:
		return errKind
	}
	return r.end()
}

// Stream checks the whole message with which a node opens a stream: an exchange of states or a ping. highest is as for
// Packet. Errors wrap ErrRefused.
func Stream(b []byte, highest uint32) error {
	if len(b) == 0 {
		return errEmpty
	}
	r := reader{b: b[1:], highest: highest}
	switch kind(b[0]) {
	case kindPushPull:
		return r.pushPull()
	case kindPing:
		r.ping()
		return r.end()
	default:
		return errKind
	}
}

// Reply checks the whole message with which a node answers on a stream: an exchange of states, an ack or an error. highest
// is as for Packet. Errors wrap ErrRefused.
func Reply(b []byte, highest uint32) error {
	if len(b) == 0 {
		return errEmpty
	}
	r := reader{b: b[1:], highest: highest}
	switch kind(b[0]) {
	case kindPushPull:
		return r.pushPull()
	case kindAck:
		r.ack()
	case kindError:
		r.errorText()
	default:
		return errKind
	}
	return r.end()
}
