package wire

import "encoding/binary"

// ProbeLen is the length in bytes of Probe, without the padding behind it.
const ProbeLen = 6

// Probe is what a probe of the path MTU says, and what its answer, which is not padded, says again. An answer is never
// longer than what it answers, so that nobody can be flooded with answers to what another has sent in his name.
type Probe struct {
	// Token names the probe among those of its sender, who alone knows what it stands for.
	Token uint32
	// Size is the length of the probe in bytes: the UDP payload from the header to the end of the padding, and of the
	// tag where it is sealed. In an answer, that of the probe that arrived.
	Size uint16
}

// Put writes p to b, all that follows the header of a probe or of an answer: behind the first ProbeLen bytes, which must
// be there, comes the padding.
func (p Probe) Put(b []byte) {
	_ = b[ProbeLen-1]
	binary.BigEndian.PutUint32(b, p.Token)
	binary.BigEndian.PutUint16(b[4:], p.Size)
	clear(b[ProbeLen:])
}

// ParseProbe reads what follows the header of a probe, which came in a datagram of size bytes. The padding is not looked
// at. The errors are ErrShort and, where the probe says another size, ErrProbe, unwrapped.
func ParseProbe(b []byte, size int) (Probe, error) {
	if len(b) < ProbeLen {
		return Probe{}, ErrShort
	}
	p := readProbe(b)
	if int(p.Size) != size {
		return Probe{}, ErrProbe
	}
	return p, nil
}

// ParseProbeReply reads what follows the header of the answer to a probe. Whether Size is that of the probe which Token
// names is for its sender to check. The errors are ErrShort and, for what is longer, ErrProbe, unwrapped.
func ParseProbeReply(b []byte) (Probe, error) {
	switch {
	case len(b) < ProbeLen:
		return Probe{}, ErrShort
	case len(b) > ProbeLen:
		return Probe{}, ErrProbe
	}
	return readProbe(b), nil
}

func readProbe(b []byte) Probe {
	return Probe{Token: binary.BigEndian.Uint32(b), Size: binary.BigEndian.Uint16(b[4:])}
}
