package endpoint

import (
	"net/netip"
	"testing"

	"weft/internal/peer"
)

// TestAddresses: which addresses are those of a host, and which of those a relay can see.
func TestAddresses(t *testing.T) {
	for _, tt := range []struct {
		usable, public bool
		addrs          []string
	}{
		{true, true, []string{"192.0.2.9:6784", "10.0.0.1:1", "[2001:db8::1]:6784", "[fd00::1]:6784", "[100:0:0:1::1]:1"}},
		{true, false, []string{"169.254.1.1:6784", "0.1.2.3:6784", "240.0.0.1:6784"}},
		{false, false, []string{
			"127.0.0.1:6784", "127.9.9.9:6784", "[::1]:6784", "0.0.0.0:6784", "[::]:6784", "224.0.0.1:6784", "[ff02::1]:6784",
			"255.255.255.255:6784", "192.0.2.9:0", "[2001:db8::1]:0", "[fe80::1]:6784", "[100::1]:6784",
			Relayed(peer.ID{1, 2, 3}).String(),
		}},
	} {
		for _, text := range tt.addrs {
			addr := netip.MustParseAddrPort(text)
			if Usable(addr) != tt.usable || Public(addr) != tt.public {
				t.Errorf("%s: usable %v, public %v", addr, Usable(addr), Public(addr))
			}
		}
	}
	if Usable(netip.AddrPort{}) || Public(netip.AddrPort{}) {
		t.Error("no address is one of a host")
	}
}

// TestRelayed: a relayed endpoint has the ID of its peer.
func TestRelayed(t *testing.T) {
	id := peer.ID{1, 2, 3, 4, 5, 6, 7, 8}
	if addr := Relayed(id); !IsRelayed(addr) || Peer(addr) != id {
		t.Errorf("%s stands for %s", addr, Peer(addr))
	}
}
