package carrier

import (
	"encoding/binary"
	"errors"

	"weft/internal/peer"
)

// ProbeLen is the length of a probe in bytes, without padding.
const ProbeLen = 40

// probeVersion is the only version of the format.
const probeVersion = 1

// probeMagic is the start of a probe, as other programs may send to the same place.
var probeMagic = [4]byte{'w', 'e', 'f', 't'}

// Bits of the flags of a probe.
const (
	flagReply   = 1 << 0
	flagWilling = 1 << 1
)

// Errors of ParseProbe.
var (
	ErrShort   = errors.New("carrier: shorter than a probe")
	ErrNoProbe = errors.New("carrier: not a probe")
	ErrVersion = errors.New("carrier: probe of another version")
)

// Probe is a message that nodes send to each other over a carrier to test it. The carrier decides in what packet it lies:
//
//	 0      4   5     6       8         16        24         32         40
//	| "weft" | 1 | flags | 0    | from    | to      | nonce    | echo     | padding: zeros
//
// All numbers are in network byte order. It is padded to the longest packet that the carrier takes, so that a path that loses large ones
// does not pass the test. A probe is not authenticated, but the sender of an echo must have read the nonce.
type Probe struct {
	// Reply: this is the reply to a probe, and gets no reply itself.
	Reply bool
	// Willing: the sender accepts the receiver's frames over the carrier. Without it the receiver carries them in
	// userspace from now on.
	Willing bool
	// From and To are the nodes at both ends.
	From, To peer.ID
	// Nonce is a random number that the reply repeats in Echo; 0 in a reply.
	Nonce uint64
	// Echo is the nonce of the probe that a reply belongs to; 0 in other probes.
	Echo uint64
}

// Append appends p, padded to size bytes, at least ProbeLen, to b and returns the extended slice.
func (p Probe) Append(b []byte, size int) []byte {
	b = append(append(b, probeMagic[:]...), probeVersion, p.flags(), 0, 0)
	b = append(append(b, p.From[:]...), p.To[:]...)
	b = binary.BigEndian.AppendUint64(b, p.Nonce)
	b = binary.BigEndian.AppendUint64(b, p.Echo)
	return append(b, make([]byte, max(size-ProbeLen, 0))...)
}

func (p Probe) flags() (f byte) {
	if p.Reply {
		f |= flagReply
	}
	if p.Willing {
		f |= flagWilling
	}
	return f
}

// ParseProbe reads the probe in b. It ignores unknown flags and bytes behind the probe. The errors are ErrShort, ErrNoProbe and
// ErrVersion.
func ParseProbe(b []byte) (Probe, error) {
	switch {
	case len(b) < ProbeLen:
		return Probe{}, ErrShort
	case [4]byte(b) != probeMagic:
		return Probe{}, ErrNoProbe
	case b[4] != probeVersion:
		return Probe{}, ErrVersion
	}
	return Probe{
		Reply:   b[5]&flagReply != 0,
		Willing: b[5]&flagWilling != 0,
		From:    peer.ID(b[8:16]),
		To:      peer.ID(b[16:24]),
		Nonce:   binary.BigEndian.Uint64(b[24:32]),
		Echo:    binary.BigEndian.Uint64(b[32:40]),
	}, nil
}
