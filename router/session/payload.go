package session

import (
	"encoding/binary"
	"errors"

	"weft/internal/peer"
	"weft/router/wire"
)

// Version is the version of the handshake. It must be equal at both ends.
const Version = 1

// errPayload: the sealed part of a handshake message is malformed.
var errPayload = errors.New("session: malformed handshake payload")

// flagPlain: the sender allows frames to be sent unsealed.
const flagPlain = 1

// initiationPayload is the sealed part of the first message.
//
//	time 8 | sender's ID 8 | offer 1 | flags 1
type initiationPayload struct {
	// time increases with each initiation of a node, so that a recorded one is refused: nanoseconds of the node's
	// clock.
	time   int64
	sender peer.ID
	offer  Offer
	plain  bool
}

func (p initiationPayload) encode() []byte {
	b := make([]byte, 0, wire.InitiationPayloadLen)
	b = binary.BigEndian.AppendUint64(b, uint64(p.time))
	b = append(b, p.sender[:]...)
	return append(b, byte(p.offer), flags(p.plain))
}

func parseInitiationPayload(b []byte) (initiationPayload, error) {
	if len(b) != wire.InitiationPayloadLen {
		return initiationPayload{}, errPayload
	}
	return initiationPayload{
		time: int64(binary.BigEndian.Uint64(b)), sender: peer.ID(b[8:16]), offer: Offer(b[16]), plain: b[17]&flagPlain != 0,
	}, nil
}

// responsePayload is the sealed part of the second message.
//
//	cipher 1 | flags 1
type responsePayload struct {
	cipher Cipher
	plain  bool
}

func (p responsePayload) encode() []byte { return []byte{byte(p.cipher), flags(p.plain)} }

func parseResponsePayload(b []byte) (responsePayload, error) {
	if len(b) != wire.ResponsePayloadLen {
		return responsePayload{}, errPayload
	}
	return responsePayload{cipher: Cipher(b[0]), plain: b[1]&flagPlain != 0}, nil
}

func flags(plain bool) byte {
	if plain {
		return flagPlain
	}
	return 0
}
