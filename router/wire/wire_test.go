package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// TestLayout pins the bytes, which must not change within a version.
func TestLayout(t *testing.T) {
	b := make([]byte, Headroom)
	Header{Type: TypeFrame, Session: 0xabcdef, Counter: 0x0102030405060708}.Put(b)
	Meta{
		Kind: KindTCPv6, ECN: true, Partial: true, Last: true,
		HeaderLen: 74, CsumStart: 54, CsumOffset: 16, SegmentSize: 1354, Index: 300,
	}.Put(b[HeaderLen:])
	const want = "11abcdef" + "0102030405060708" + "3a" + "4a" + "36" + "10" + "054a" + "012c"
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("bytes\n got %s\nwant %s", got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	good := make([]byte, HeaderLen)
	Header{Type: TypeFrame}.Put(good)
	for _, tt := range []struct {
		name   string
		change func([]byte) []byte
		want   error
	}{
		{"empty", func([]byte) []byte { return nil }, ErrShort},
		{"one byte short", func(b []byte) []byte { return b[:HeaderLen-1] }, ErrShort},
		{"version 0", func(b []byte) []byte { b[0] = 0x01; return b }, ErrVersion},
		{"version 2", func(b []byte) []byte { b[0] = 0x21; return b }, ErrVersion},
		{"type 0", func(b []byte) []byte { b[0] = 0x10; return b }, ErrType},
		{"type 14", func(b []byte) []byte { b[0] = 0x1e; return b }, ErrType},
		{"type 15", func(b []byte) []byte { b[0] = 0x1f; return b }, ErrType},
	} {
		if _, _, err := Parse(tt.change(bytes.Clone(good))); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// segment is a valid segment in the middle of a TCP superframe: 66 bytes of headers and 1,000 of payload.
var segment = Meta{
	Kind: KindTCPv4, Partial: true, HeaderLen: 66, CsumStart: 34, CsumOffset: 16, SegmentSize: 1000, Index: 2,
}

func TestParseMeta(t *testing.T) {
	with := func(change func(*Meta)) Meta { m := segment; change(&m); return m }
	for _, tt := range []struct {
		name string
		meta Meta
		n    int
		ok   bool
	}{
		{"plain", Meta{}, 60, true},
		{"plain of no bytes", Meta{}, 0, true},
		{"single, checksum left", Meta{Partial: true, CsumStart: 34, CsumOffset: 6}, 60, true},
		{"checksum at the end", Meta{Partial: true, CsumStart: 34, CsumOffset: 6}, 42, true},
		{"checksum beyond the end", Meta{Partial: true, CsumStart: 34, CsumOffset: 6}, 41, false},
		{"checksum in the Ethernet header", Meta{Partial: true, CsumStart: 12}, 60, false},
		{"offset without a checksum", Meta{CsumOffset: 6}, 60, false},
		{"plain with an index", Meta{Index: 1}, 60, false},
		{"plain with a segment size", Meta{SegmentSize: 1}, 60, false},
		{"plain and last", Meta{Last: true}, 60, false},
		{"segment", segment, 1066, true},
		{"segment too long", segment, 1067, false},
		{"segment too short", segment, 1065, false},
		{"last segment", with(func(m *Meta) { m.Last = true }), 67, true},
		{"last segment, full", with(func(m *Meta) { m.Last = true }), 1066, true},
		{"last segment without payload", with(func(m *Meta) { m.Last = true }), 66, false},
		{"shorter than its headers", segment, 65, false},
		{"segment with its checksum", with(func(m *Meta) { m.Partial = false }), 1066, false},
		{"checksum behind the headers", with(func(m *Meta) { m.CsumOffset = 31 }), 1066, false},
		{"segment size 0", with(func(m *Meta) { m.SegmentSize = 0 }), 1066, false},
		{"at the end of 64 KiB", with(func(m *Meta) { m.Index = 64 }), 1066, true},
		{"beyond 64 KiB", with(func(m *Meta) { m.Index = 65 }), 1066, false},
		{"ECN of UDP", with(func(m *Meta) { m.Kind, m.ECN = KindUDP, true }), 1066, false},
		{"segment from an entropy port", with(func(m *Meta) { m.EntropyPort = true }), 1066, true},
		{"plain from an entropy port", Meta{EntropyPort: true}, 60, true},
		{"plain from an entropy port with an index", Meta{EntropyPort: true, Index: 1}, 60, false},
		{"unknown kind", with(func(m *Meta) { m.Kind = 4 }), 1066, false},
	} {
		b := make([]byte, MetaLen+tt.n)
		tt.meta.Put(b)
		got, frame, err := ParseMeta(b)
		switch {
		case tt.ok && (err != nil || got != tt.meta || len(frame) != tt.n):
			t.Errorf("%s: got %+v, %d bytes, %v", tt.name, got, len(frame), err)
		case FromEntropyPort(b) != tt.meta.EntropyPort:
			t.Errorf("%s: FromEntropyPort %v", tt.name, FromEntropyPort(b))
		case !tt.ok && !errors.Is(err, ErrMeta):
			t.Errorf("%s: %v, want ErrMeta", tt.name, err)
		}
	}
	if _, _, err := ParseMeta(make([]byte, MetaLen-1)); !errors.Is(err, ErrShort) {
		t.Errorf("short: %v", err)
	}
	if FromEntropyPort([]byte{flagEntropy}) {
		t.Error("short, from an entropy port")
	}
	if _, _, err := ParseMeta([]byte{0x80, 0, 0, 0, 0, 0, 0, 0}); !errors.Is(err, ErrMeta) {
		t.Errorf("reserved bit: %v", err)
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Header{
			Type: rapid.SampledFrom([]Type{
				TypeFrame, TypeProbe, TypeProbeReply, TypeKeepalive, TypePlain, TypeInitiation, TypeUnknown, TypePortProbe,
			}).Draw(t, "type"),
			Session: rapid.Uint32Max(MaxSession).Draw(t, "session"),
			Counter: rapid.Uint64().Draw(t, "counter"),
		}
		b := make([]byte, HeaderLen+3)
		want.Put(b)
		got, rest, err := Parse(b)
		if err != nil || got != want || len(rest) != 3 {
			t.Fatalf("got %+v, %d bytes, %v; want %+v", got, len(rest), err, want)
		}
	})
}

func TestMTU(t *testing.T) {
	for _, tt := range []struct {
		underlay     int
		sealed, ipv6 bool
		want         int
	}{
		{1500, false, false, 1438},
		{1500, true, false, 1422},
		{1500, false, true, 1418},
		{1500, true, true, 1402},
		{9000, true, false, 8922},
		{40, true, true, 0},
	} {
		if got := MTU(tt.underlay, tt.sealed, tt.ipv6); got != tt.want {
			t.Errorf("MTU(%d, %v, %v) = %d, want %d", tt.underlay, tt.sealed, tt.ipv6, got, tt.want)
		}
	}
	if OverheadPlain != 62 || OverheadSealed != 78 || OverheadIPv6 != 20 {
		t.Errorf("overheads %d, %d, %d", OverheadPlain, OverheadSealed, OverheadIPv6)
	}
}

// FuzzParse: accepted metadata is in bounds, and the same after encoding.
func FuzzParse(f *testing.F) {
	seed := make([]byte, Headroom+1066)
	Header{Type: TypeFrame, Session: 7, Counter: 9}.Put(seed)
	segment.Put(seed[HeaderLen:])
	f.Add(seed)
	f.Add(seed[:Headroom])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, rest, err := Parse(b)
		if err != nil {
			return
		}
		m, frame, err := ParseMeta(rest)
		if err != nil {
			return
		}
		if m.Kind != KindNone {
			_, _ = frame[:m.HeaderLen], frame[m.HeaderLen:]
		}
		if m.Partial {
			_ = frame[int(m.CsumStart)+int(m.CsumOffset)+1]
		}
		again := make([]byte, Headroom)
		h.Put(again)
		m.Put(again[HeaderLen:])
		if !bytes.Equal(again, b[:Headroom]) {
			t.Fatalf("%x is written again as %x", b[:Headroom], again)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	datagram := make([]byte, Headroom+1438)
	Header{Type: TypeFrame}.Put(datagram)
	b.ReportAllocs()
	for b.Loop() {
		_, rest, err := Parse(datagram)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := ParseMeta(rest); err != nil {
			b.Fatal(err)
		}
	}
}
