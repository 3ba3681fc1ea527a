package vxlan

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/ether"
	"weft/internal/peer"
)

func TestProbe(t *testing.T) {
	for _, want := range []Probe{
		{},
		{Willing: true, From: peer.ID{1, 2, 3, 4, 5, 6, 7, 8}, To: peer.ID{9}, Nonce: 1<<63 + 7},
		{Reply: true, From: peer.ID{1}, To: peer.ID{2}, Echo: 42},
	} {
		frame := want.AppendFrame([]byte{0xaa}, 1400)[1:]
		if len(frame) != ether.HeaderLen+1400 || ether.Destination(frame) != ProbeMAC(want.To) || ether.Source(frame) != ProbeMAC(want.From) {
			t.Errorf("frame of %d bytes from %s to %s", len(frame), ether.Source(frame), ether.Destination(frame))
		}
		for _, f := range [][]byte{frame, frame[:ether.HeaderLen+probeLen], want.AppendFrame(nil, 0)} {
			got, err := ParseProbe(f)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v, (-want +got):\n%s", err, diff)
			}
		}
	}
}

func TestParseProbeRefuses(t *testing.T) {
	change := func(at int, to byte) []byte {
		f := Probe{}.AppendFrame(nil, 0)
		f[at] = to
		return f
	}
	for name, c := range map[string]struct {
		frame []byte
		want  error
	}{
		"empty":           {nil, ErrShort},
		"a byte short":    {Probe{}.AppendFrame(nil, 0)[:ether.HeaderLen+probeLen-1], ErrShort},
		"other EtherType": {change(13, 0xb6), ErrNoProbe},
		"other magic":     {change(14, 'W'), ErrNoProbe},
		"other version":   {change(18, 2), ErrVersion},
	} {
		if _, err := ParseProbe(c.frame); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestProbeMAC(t *testing.T) {
	if m := ProbeMAC(peer.ID{0xff, 1}); m.IsMulticast() || m[0]&2 == 0 {
		t.Errorf("%s is not unicast and locally administered", m)
	}
}

func FuzzParseProbe(f *testing.F) {
	f.Add(Probe{Reply: true, Nonce: 1, Echo: 2}.AppendFrame(nil, 100))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, frame []byte) {
		p, err := ParseProbe(frame)
		if err != nil {
			return
		}
		again, err := ParseProbe(p.AppendFrame(nil, 0))
		if err != nil || again != p {
			t.Errorf("%+v became %+v, %v", p, again, err)
		}
	})
}
