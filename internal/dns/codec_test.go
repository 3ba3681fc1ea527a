package dns

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weft/internal/peer"
)

// epoch is the time at which tests begin.
var epoch = time.Unix(1_700_000_000, 0)

var compareAddrs = cmp.Options{cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// decodeAll returns the entries of a message and the first error.
func decodeAll(msg []byte, now time.Time) (entries []Entry, err error) {
	for e, bad := range decode(msg, now) {
		if bad == nil {
			entries = append(entries, e)
		} else if err == nil {
			err = bad
		}
	}
	return entries, err
}

func TestCodec(t *testing.T) {
	entries := []Entry{
		{Node: peer.ID{1}, Name: "web", Addr: addr("10.32.0.1"), Version: 7, At: epoch},
		{Node: peer.ID{1}, Name: "web", Addr: addr("fd00::1"), Version: maxVersion, At: epoch},
		{
			Node: peer.ID{2}, Name: strings.Repeat("a", 63) + "." + strings.Repeat("b", 63), Addr: addr("10.32.0.1"),
			Version: 1, Removed: true, At: epoch.Add(-90 * time.Second),
		},
	}
	got, err := decodeAll(encode(entries, 0, epoch)[0], epoch)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(entries, got, compareAddrs); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
}

func TestCodecChunks(t *testing.T) {
	var entries []Entry
	for i := range 100 {
		name := strings.Repeat("a", 1+i%63) + "." + strings.Repeat("b", 1+i%63)
		entries = append(entries, Entry{Node: peer.ID{byte(1 + i/10)}, Name: name, Addr: addr("fd00::1"), Version: 1 << 61, At: epoch})
	}
	var got []Entry
	for _, msg := range encode(entries, MaxDelta, epoch) {
		if len(msg) > MaxDelta {
			t.Errorf("a delta of %d bytes", len(msg))
		}
		part, err := decodeAll(msg, epoch)
		if err != nil {
			t.Error(err)
		}
		got = append(got, part...)
	}
	if diff := cmp.Diff(entries, got, compareAddrs); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
	if n := len(encode(nil, MaxDelta, epoch)); n != 0 {
		t.Errorf("%d messages without entries", n)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := Entry{Node: peer.ID{1}, Name: "web", Addr: addr("10.32.0.1"), Version: 7, At: epoch}
	with := func(change func(e *Entry)) []byte {
		e := good
		change(&e)
		return encode([]Entry{e, good}, 0, epoch)[0]
	}
	whole := encode([]Entry{good}, 0, epoch)[0]
	for name, c := range map[string]struct {
		msg  []byte
		left int // entries that are read nevertheless
	}{
		"nothing":         {nil, 0},
		"another version": {[]byte{2}, 0},
		"unknown flags":   {[]byte{codecVersion, 0x80}, 0},
		"cut short":       {whole[:len(whole)-1], 0},
		"trailing byte":   {append(bytes.Clone(whole), flagIPv6), 1},
		"no node":         {append([]byte{codecVersion, 0}, whole[10:]...), 0},
		"no name":         {with(func(e *Entry) { e.Name = "" }), 1},
		"upper case":      {with(func(e *Entry) { e.Name = "Web" }), 1},
		"no host name":    {with(func(e *Entry) { e.Name = "-web" }), 1},
		"no version":      {with(func(e *Entry) { e.Version = 0 }), 1},
		"version":         {with(func(e *Entry) { e.Version = maxVersion + 1 }), 1},
		"unspecified":     {with(func(e *Entry) { e.Addr = addr("0.0.0.0") }), 1},
		"multicast":       {with(func(e *Entry) { e.Addr = addr("ff02::1") }), 1},
		"IPv4 as IPv6":    {with(func(e *Entry) { e.Addr = addr("::ffff:10.32.0.1") }), 1},
	} {
		got, err := decodeAll(c.msg, epoch)
		if !errors.Is(err, ErrMessage) || len(got) != c.left {
			t.Errorf("%s: %d entries, want %d; %v", name, len(got), c.left, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode([]Entry{
		{Node: peer.ID{1}, Name: "web", Addr: addr("10.32.0.1"), Version: 7},
		{Node: peer.ID{2}, Name: "web.shop", Addr: addr("fd00::1"), Version: 8, Removed: true},
	}, 0, epoch)[0])
	f.Add([]byte{codecVersion, flagNode | flagRemoved, 1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, msg []byte) {
		entries, _ := decodeAll(msg, epoch)
		for _, e := range entries {
			if !e.valid() || e.At.After(epoch) || epoch.Sub(e.At) > tombstoneTTL {
				t.Fatalf("invalid entry: %+v", e)
			}
		}
		again, err := decodeAll(encode(entries, 0, epoch)[0], epoch)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(entries, again, compareAddrs); diff != "" {
			t.Fatalf("encoded and decoded (-want +got):\n%s", diff)
		}
		r, err := NewRegistry(RegistryConfig{Self: peer.ID{1}, Domain: testDomain, Clock: fixedClock{}})
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Merge(msg)
	})
}

func TestParseName(t *testing.T) {
	long := strings.TrimSuffix(strings.Repeat(strings.Repeat("x", 49)+".", 4), ".")
	for in, want := range map[string]string{
		"web": "web", "Web": "web", "web.": "web", "WEB.weft.LOCAL": "web", "web.shop.weft.local.": "web.shop",
		"1": "1", "a-b": "a-b", "xn--bcher-kva": "xn--bcher-kva", long: long, "weft.local": "",
		"": "", ".": "", "-a": "", "a-": "", "a..b": "", ".a": "", "a_b": "", "a b": "", "ü": "", "a\x00": "",
		strings.Repeat("x", 64): "", long + "xx": "", "a.b.c.d.e.f.g.h": "a.b.c.d.e.f.g.h", "a.b.c.d.e.f.g.h.i": "", ".weft.local": "",
	} {
		got, err := ParseName(in, testDomain)
		if got != want || errors.Is(err, ErrName) != (want == "") {
			t.Errorf("ParseName(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}
