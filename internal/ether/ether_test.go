package ether

import (
	"errors"
	"net/netip"
	"testing"
)

func TestAddrText(t *testing.T) {
	a, err := ParseAddr("0A-57-0a-20-00-01")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := a.String(), "0a:57:0a:20:00:01"; got != want {
		t.Errorf("String = %q, want %q", got, want)
	}
	for _, bad := range []string{"", "0a:57", "0a:57:0a:20:00:01:02:03", "hello"} {
		if _, err := ParseAddr(bad); !errors.Is(err, ErrBadAddr) {
			t.Errorf("ParseAddr(%q) = %v, want ErrBadAddr", bad, err)
		}
	}
}

func TestFromIP(t *testing.T) {
	for _, tt := range []struct{ ip, want string }{
		{"10.32.0.1", "0a:57:0a:20:00:01"},
		{"::ffff:10.32.0.1", "0a:57:0a:20:00:01"},
	} {
		if got := FromIP(netip.MustParseAddr(tt.ip)).String(); got != tt.want {
			t.Errorf("FromIP(%s) = %s, want %s", tt.ip, got, tt.want)
		}
	}
	one, two := FromIP(netip.MustParseAddr("fd00::1")), FromIP(netip.MustParseAddr("fd00::2"))
	if one == two || one.IsMulticast() || one[0]&2 == 0 {
		t.Errorf("IPv6 MACs %s and %s: want distinct, unicast, locally administered", one, two)
	}
}

func TestClasses(t *testing.T) {
	for _, tt := range []struct {
		mac                  string
		multicast, linkLocal bool
	}{
		{"ff:ff:ff:ff:ff:ff", true, false},
		{"01:80:c2:00:00:00", true, true},
		{"01:80:c2:00:00:0f", true, true},
		{"01:80:c2:00:00:10", true, false},
		{"33:33:00:00:00:01", true, false},
		{"0a:57:0a:20:00:01", false, false},
	} {
		a, err := ParseAddr(tt.mac)
		if err != nil {
			t.Fatal(err)
		}
		if a.IsMulticast() != tt.multicast || a.IsLinkLocal() != tt.linkLocal {
			t.Errorf("%s: multicast %v, link-local %v", a, a.IsMulticast(), a.IsLinkLocal())
		}
	}
}

func TestHeader(t *testing.T) {
	frame := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x08, 0x06}
	if Destination(frame) != (Addr{1, 2, 3, 4, 5, 6}) || Source(frame) != (Addr{7, 8, 9, 10, 11, 12}) || Type(frame) != TypeARP {
		t.Fatal("header fields misread")
	}
}

func TestLinkLocal(t *testing.T) {
	mac, err := ParseAddr("02:42:0a:20:00:02")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := mac.LinkLocal(), netip.MustParseAddr("fe80::42:aff:fe20:2"); got != want {
		t.Errorf("LinkLocal of %s = %s, want %s", mac, got, want)
	}
}
