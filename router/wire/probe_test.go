package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// TestProbeLayout pins the bytes of a probe of 20 bytes and of its reply.
func TestProbeLayout(t *testing.T) {
	for want, tt := range map[string]struct {
		kind Type
		size int
	}{
		"12000000" + "0102030405060708" + "a1b2c3d4" + "0014" + "0000": {TypeProbe, 20},
		"13000000" + "0102030405060708" + "a1b2c3d4" + "0014":          {TypeProbeReply, HeaderLen + ProbeLen},
	} {
		b := bytes.Repeat([]byte{0xff}, tt.size) // earlier bytes must not be sent
		Header{Type: tt.kind, Counter: 0x0102030405060708}.Put(b)
		Probe{Token: 0xa1b2c3d4, Size: 20}.Put(b[HeaderLen:])
		if got := hex.EncodeToString(b); got != want {
			t.Errorf("bytes\n got %s\nwant %s", got, want)
		}
	}
}

func TestParseProbeRefuses(t *testing.T) {
	body := make([]byte, 100)
	Probe{Token: 1, Size: 112}.Put(body)
	for _, tt := range []struct {
		name string
		b    []byte
		size int
		want error
	}{
		{"good", body, 112, nil},
		{"sealed: the tag is no longer there", body[:84], 112, nil},
		{"says more than arrived", body[:99], 111, ErrProbe},
		{"says less than arrived", body, 113, ErrProbe},
		{"cut", body[:ProbeLen-1], 17, ErrShort},
		{"empty", nil, 12, ErrShort},
	} {
		if _, err := ParseProbe(tt.b, tt.size); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestParseProbeReplyRefuses(t *testing.T) {
	for n, want := range map[int]error{0: ErrShort, ProbeLen - 1: ErrShort, ProbeLen: nil, ProbeLen + 1: ErrProbe} {
		if _, err := ParseProbeReply(make([]byte, n)); !errors.Is(err, want) {
			t.Errorf("%d bytes: %v, want %v", n, err, want)
		}
	}
}

func TestProbeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(HeaderLen+ProbeLen, 1<<16-1).Draw(t, "size")
		want := Probe{Token: rapid.Uint32().Draw(t, "token"), Size: uint16(size)}
		b := make([]byte, size-HeaderLen)
		want.Put(b)
		if got, err := ParseProbe(b, size); err != nil || got != want {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
		want.Put(b[:ProbeLen])
		if got, err := ParseProbeReply(b[:ProbeLen]); err != nil || got != want {
			t.Fatalf("answer: got %+v, %v; want %+v", got, err, want)
		}
	})
}

// FuzzParseProbe: an accepted probe is the same after encoding, and has the size in it.
func FuzzParseProbe(f *testing.F) {
	seed := make([]byte, 40)
	Header{Type: TypeProbe}.Put(seed)
	Probe{Token: 7, Size: 40}.Put(seed[HeaderLen:])
	f.Add(seed)
	Header{Type: TypeProbeReply}.Put(seed)
	f.Add(seed[:HeaderLen+ProbeLen])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, rest, err := Parse(b)
		if err != nil {
			return
		}
		var p Probe
		switch h.Type {
		case TypeProbe:
			p, err = ParseProbe(rest, len(b))
			if err == nil && int(p.Size) != len(b) {
				t.Fatalf("%d bytes pass for %d", len(b), p.Size)
			}
		case TypeProbeReply:
			p, err = ParseProbeReply(rest)
		default:
			return
		}
		if err != nil {
			return
		}
		again := make([]byte, HeaderLen+ProbeLen)
		h.Put(again)
		p.Put(again[HeaderLen:])
		if !bytes.Equal(again, b[:len(again)]) {
			t.Fatalf("%x is written again as %x", b[:len(again)], again)
		}
	})
}
