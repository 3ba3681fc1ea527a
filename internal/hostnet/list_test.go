package hostnet

import (
	"net/netip"
	"testing"
)

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

func TestMTUOf(t *testing.T) {
	list := []Address{
		{Addr: addr("127.0.0.1"), Link: "lo", MTU: 1 << 16, Up: true, Loopback: true},
		{Addr: addr("192.0.2.1"), Link: "old", MTU: 9000},
		{Addr: addr("192.0.2.1"), Link: "new", MTU: 1400, Up: true},
		{Addr: addr("fd77::1"), Link: "new", MTU: 1400, Up: true},
	}
	for self, want := range map[string]int{
		"192.0.2.1": 1400, "::ffff:192.0.2.1": 1400, "fd77::1": 1400, "127.0.0.1": MaxMTU, "198.51.100.7": defaultMTU,
	} {
		if got := mtuOf(list, addr(self)); got != want {
			t.Errorf("%s: %d, want %d", self, got, want)
		}
	}
}

func TestFirstGlobal(t *testing.T) {
	skip := Skip{Bridge: "weave", Ranges: []netip.Prefix{netip.MustParsePrefix("10.32.0.0/12")}}
	excluded := []Address{
		{Addr: addr("127.0.0.1"), Link: "lo", Up: true, Loopback: true},
		{Addr: addr("192.0.2.1"), Link: "down"},
		{Addr: addr("192.0.2.2"), Link: "weave", Up: true},
		{Addr: addr("10.33.0.1"), Link: "eth0", Up: true},
		{Addr: addr("fe80::1"), Link: "eth0", Up: true},
	}
	if a, ok := firstGlobal(excluded, skip); ok {
		t.Errorf("%s is excluded", a)
	}
	good := Address{Addr: addr("192.0.2.3"), Link: "eth0", Up: true}
	if a, ok := firstGlobal(append(excluded, good), skip); !ok || a != good.Addr {
		t.Errorf("%s, want %s", a, good.Addr)
	}
}
