package carrier

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/peer"
)

func TestProbe(t *testing.T) {
	for _, want := range []Probe{
		{},
		{Willing: true, From: peer.ID{1, 2, 3, 4, 5, 6, 7, 8}, To: peer.ID{9}, Nonce: 1<<63 + 7},
		{Reply: true, From: peer.ID{1}, To: peer.ID{2}, Echo: 42},
	} {
		b := want.Append([]byte{0xaa}, 1400)[1:]
		if len(b) != 1400 {
			t.Errorf("%d bytes", len(b))
		}
		for _, b := range [][]byte{b, b[:ProbeLen], want.Append(nil, 0)} {
			got, err := ParseProbe(b)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v, (-want +got):\n%s", err, diff)
			}
		}
	}
}

func TestParseProbeRefuses(t *testing.T) {
	change := func(at int, to byte) []byte {
		b := Probe{}.Append(nil, 0)
		b[at] = to
		return b
	}
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"empty":         {nil, ErrShort},
		"a byte short":  {Probe{}.Append(nil, 0)[:ProbeLen-1], ErrShort},
		"other magic":   {change(0, 'W'), ErrNoProbe},
		"other version": {change(4, 2), ErrVersion},
	} {
		if _, err := ParseProbe(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func FuzzParseProbe(f *testing.F) {
	f.Add(Probe{Reply: true, Nonce: 1, Echo: 2}.Append(nil, 100))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseProbe(b)
		if err != nil {
			return
		}
		again, err := ParseProbe(p.Append(nil, 0))
		if err != nil || again != p {
			t.Errorf("%+v became %+v, %v", p, again, err)
		}
	})
}
