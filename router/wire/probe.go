package wire

import "encoding/binary"

// ProbeLen is the length in bytes of Probe, without the padding behind it.
const ProbeLen = 6

// Probe is the content of a probe of the path MTU, and of the reply to it, which repeats it without the padding. A
// reply is never longer than the probe, so that probes with a forged source address cannot amplify a flood.
type Probe struct {
	// Token identifies the probe at its sender.
	Token uint32
	// Size is the length of the probe in bytes: the UDP payload from the header to the end of the padding, and the tag
	// of a sealed one. In a reply it is the size of the received probe.
	Size uint16
}

// Put writes p to b, the body of a probe or of a reply: ProbeLen bytes, which b must have, then padding to the end of
// b.
func (p Probe) Put(b []byte) {
	_ = b[ProbeLen-1]
	binary.BigEndian.PutUint32(b, p.Token)
	binary.BigEndian.PutUint16(b[4:], p.Size)
	clear(b[ProbeLen:])
}

// ParseProbe reads the body of a probe, which came in a datagram of size bytes. It does not check the padding. The
// errors are ErrShort, and ErrProbe for a probe with another size, unwrapped.
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

// ParseProbeReply reads the body of the reply to a probe. The caller checks whether Size is that of the probe with this
// Token. The errors are ErrShort, and ErrProbe for a longer body, unwrapped.
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
