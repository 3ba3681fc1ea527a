package vxlan

import (
	"errors"
	"testing"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/carrier"
)

func TestProbe(t *testing.T) {
	want := carrier.Probe{Willing: true, From: peer.ID{1, 2, 3, 4, 5, 6, 7, 8}, To: peer.ID{9}, Nonce: 7}
	frame := appendProbe(nil, want, 1400)
	if len(frame) != ether.HeaderLen+1400 || ether.Destination(frame) != ProbeMAC(want.To) || ether.Source(frame) != ProbeMAC(want.From) {
		t.Errorf("frame of %d bytes from %s to %s", len(frame), ether.Source(frame), ether.Destination(frame))
	}
	if got, err := parseProbe(frame); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := parseProbe(frame[:ether.HeaderLen-1]); !errors.Is(err, carrier.ErrShort) {
		t.Error(err)
	}
	frame[13]++
	if _, err := parseProbe(frame); !errors.Is(err, carrier.ErrNoProbe) {
		t.Error(err)
	}
}

func TestProbeMAC(t *testing.T) {
	if m := ProbeMAC(peer.ID{0xff, 1}); m.IsMulticast() || m[0]&2 == 0 {
		t.Errorf("%s is not unicast and locally administered", m)
	}
}
