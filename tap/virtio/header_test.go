package virtio

import (
	"errors"
	"testing"
)

func TestHeaderRoundTrip(t *testing.T) {
	want := Header{
		Flags: FlagNeedsChecksum, GSOType: GSOTCPv4 | GSOECN, HdrLen: 66, GSOSize: 1398, CsumStart: 34, CsumOffset: 16,
	}
	b := make([]byte, HeaderLen+3)
	want.Put(b)
	got, rest, err := Parse(b)
	if err != nil || got != want || len(rest) != 3 {
		t.Errorf("got %+v and %d bytes, %v; want %+v", got, len(rest), err, want)
	}
	for n := range HeaderLen {
		if _, _, err := Parse(b[:n]); !errors.Is(err, ErrShort) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestIsPlain(t *testing.T) {
	for _, tt := range []struct {
		h    Header
		want bool
	}{
		{Header{}, true},
		{Header{Flags: FlagDataValid}, true},
		{Header{Flags: FlagNeedsChecksum}, false},
		{Header{GSOType: GSOUDPL4}, false},
	} {
		if tt.h.IsPlain() != tt.want {
			t.Errorf("%+v: plain %v", tt.h, !tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(make([]byte, HeaderLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, rest, err := Parse(b)
		if err != nil {
			return
		}
		again := make([]byte, HeaderLen)
		h.Put(again)
		if string(again)+string(rest) != string(b) {
			t.Errorf("%x came back as %x and %x", b, again, rest)
		}
	})
}
