package vxlan

import (
	"encoding/binary"
	"errors"

	"weft/internal/ether"
	"weft/internal/peer"
)

// probeType is the EtherType of probes: Local Experimental 1 (IEEE 802, RFC 9542 section 3.4.1).
const probeType = 0x88b5

// probeVersion is the only version of the format there is.
const probeVersion = 1

// probeLen is the length of a probe without the Ethernet header and the padding.
const probeLen = 40

// probeMagic starts a probe: the EtherType is anybody's.
var probeMagic = [4]byte{'w', 'e', 'f', 't'}

// Bits of the flags of a probe.
const (
	flagReply   = 1 << 0
	flagWilling = 1 << 1
)

// Errors of ParseProbe.
var (
	ErrShort   = errors.New("vxlan: shorter than a probe")
	ErrNoProbe = errors.New("vxlan: not a probe")
	ErrVersion = errors.New("vxlan: a probe of another version")
)

// Probe is what nodes send each other over the kernel path to know that there is one. On the wire it is an Ethernet
// frame from one device to the other,
//
//	 0      4   5     6       8         16        24         32         40
//	| "weft" | 1 | flags | 0    | from    | to      | nonce    | echo     | padding: zeros
//
// with all numbers in network order. It is padded to the device's MTU, so that a path which loses what is large is not
// taken for one that works. A probe proves nothing about who has sent it, except that an echo comes from somebody who
// could read the nonce.
type Probe struct {
	// Reply says that this is the answer to a probe, and is to get none.
	Reply bool
	// Willing says that the sender would have the receiver's frames carried by the kernel; without it the receiver
	// carries them in userspace from now on.
	Willing bool
	// From and To are the nodes at both ends.
	From, To peer.ID
	// Nonce is the sender's, for the answer to repeat: random, and 0 in an answer.
	Nonce uint64
	// Echo is, in an answer, the nonce of the probe that is answered.
	Echo uint64
}

// AppendFrame appends the frame that carries p with a payload of size bytes, or of the shortest possible where that is
// longer, and returns the extended slice.
func (p Probe) AppendFrame(b []byte, size int) []byte {
	to, from := ProbeMAC(p.To), ProbeMAC(p.From)
	b = append(append(b, to[:]...), from[:]...)
	b = binary.BigEndian.AppendUint16(b, probeType)
	b = append(append(b, probeMagic[:]...), probeVersion, p.flags(), 0, 0)
	b = append(append(b, p.From[:]...), p.To[:]...)
	b = binary.BigEndian.AppendUint64(b, p.Nonce)
	b = binary.BigEndian.AppendUint64(b, p.Echo)
	return append(b, make([]byte, max(size-probeLen, 0))...)
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

// ParseProbe reads the probe in frame, from the Ethernet header on. Flags and bytes behind the probe that this version
// does not know are passed over. The errors are ErrShort, ErrNoProbe and ErrVersion.
func ParseProbe(frame []byte) (Probe, error) {
	if len(frame) < ether.HeaderLen+probeLen {
		return Probe{}, ErrShort
	}
	b := frame[ether.HeaderLen:]
	switch {
	case ether.Type(frame) != probeType || [4]byte(b) != probeMagic:
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
