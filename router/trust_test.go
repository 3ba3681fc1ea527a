package router

import (
	"net/netip"
	"testing"

	"weft/internal/peer"
	"weft/internal/simnet"
	"weft/router/endpoint"
	"weft/tap/taptest"
)

// everywhere contains all addresses.
var everywhere = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// TestRelayedEndpointIsNeverTrusted: with a secret, no list of subnets contains the address that stands for a path over
// relays, at none of the places where trust is decided.
func TestRelayedEndpointIsNeverTrusted(t *testing.T) {
	n := newNodeWith(t, simnet.New(1), 0, taptest.Config{MTU: 1422}, Config{Secrets: modes["sealed"], Trusted: everywhere})
	relayed := endpoint.Relayed(peer.ID{1, 2, 3}).Addr()
	for _, prefixes := range [][]netip.Prefix{everywhere, {endpoint.RelayPrefix}, {netip.PrefixFrom(relayed, 128)}} {
		n.SetTrusted(prefixes)
		if n.trusts(relayed) || Trusted(prefixes).Contains(relayed) {
			t.Errorf("%v contains %s", prefixes, relayed)
		}
	}
	n.SetTrusted(everywhere)
	for _, addr := range []string{"192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "100:0:0:1::1"} {
		if !n.trusts(netip.MustParseAddr(addr)) {
			t.Errorf("%s is not trusted", addr)
		}
	}
}
