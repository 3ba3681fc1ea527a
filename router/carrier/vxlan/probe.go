package vxlan

import (
	"encoding/binary"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/carrier"
)

// probeType is the EtherType of probes: Local Experimental 1 (IEEE 802, RFC 9542 section 3.4.1).
const probeType = 0x88b5

// ProbeMAC returns the hardware address of the VXLAN device of the node id, to which probes for that node are sent:
// unicast, locally administered. A bridge does not forward frames to the address of one of its ports, so pods never see
// a probe. The first byte is as high as possible, as a bridge without an address of its own uses the lowest address of
// its ports.
func ProbeMAC(id peer.ID) ether.Addr {
	return ether.Addr{0xfe, id[0], id[1], id[2], id[3], id[4]}
}

// tokenAt is where the token of a pair lies in a frame: in the padding of the probe.
const tokenAt = ether.HeaderLen + carrier.ProbeLen

// appendProbe appends the frame of p, from one device to the other, with a payload of size bytes, at least carrier.ProbeLen, to b and
// returns the extended slice.
func appendProbe(b []byte, p carrier.Probe, size int) []byte {
	to, from := ProbeMAC(p.To), ProbeMAC(p.From)
	b = append(append(b, to[:]...), from[:]...)
	b = binary.BigEndian.AppendUint16(b, probeType)
	return p.Append(b, size)
}

// parseProbe reads the probe in a frame. The errors are those of carrier.ParseProbe.
func parseProbe(frame []byte) (carrier.Probe, error) {
	switch {
	case len(frame) < ether.HeaderLen:
		return carrier.Probe{}, carrier.ErrShort
	case ether.Type(frame) != probeType:
		return carrier.Probe{}, carrier.ErrNoProbe
	}
	return carrier.ParseProbe(frame[ether.HeaderLen:])
}
