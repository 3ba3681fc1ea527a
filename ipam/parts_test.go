package ipam

import (
	"context"
	"errors"
	"net/netip"
	"testing"
)

// apart is an Apart of constant subnets.
type apart []netip.Prefix

func (a apart) Subnets() []netip.Prefix { return a }

// TestAddressesApart: subnets of others are left to them while there are other addresses.
func TestAddressesApart(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *bus) {
		cfg := b.nodes[0].config(1, "10.32.0.0/28")
		subnets := apart{netip.MustParsePrefix("10.32.0.8/30"), netip.MustParsePrefix("10.32.0.0/29"), netip.MustParsePrefix("10.32.0.0/28"),
			netip.MustParsePrefix("fd32::/64")}
		cfg.Apart = subnets
		a := b.nodes[0].start(cfg)
		b.eventually("ready", b.allReady)
		for i := range 3 { // 10.32.0.12 to 14
			if l := allocate(t, a, string(rune('A'+i)), ""); subnets[0].Contains(l.Addr) || subnets[1].Contains(l.Addr) {
				t.Errorf("%s is in the subnet of others", l.Addr)
			}
		}
		allocate(t, a, "last", "") // there are no others
	})
}

// TestAddressesOutsideOfSubnets: a holder without a subnet gets no address of one that this node has leases in, and gets them once there
// are none.
func TestAddressesOutsideOfSubnets(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *bus) {
		b.startAll("10.32.0.0/27")
		b.eventually("ready", b.allReady)
		a := b.nodes[0].alloc
		for holder, in := range map[string]string{"x": "10.32.0.0/30", "y": "10.32.0.8/29", "z": "10.32.0.8/30"} {
			allocate(t, a, holder, in)
		}
		subnets := []netip.Prefix{netip.MustParsePrefix("10.32.0.0/30"), netip.MustParsePrefix("10.32.0.8/29")}
		for i := range 32 - 4 - 8 - 1 { // all but the broadcast address
			l := allocate(t, a, string(rune('A'+i)), "")
			for _, s := range subnets {
				if s.Contains(l.Addr) {
					t.Errorf("%s is in the subnet %s", l.Addr, s)
				}
			}
		}
		if _, err := a.Allocate(context.Background(), "last", netip.Prefix{}); !errors.Is(err, ErrExhausted) {
			t.Errorf("with addresses of subnets alone: %v", err)
		}
		allocate(t, a, "w", "10.32.0.8/29") // the subnets have room
		for _, holder := range []string{"y", "z", "w"} {
			if err := a.Release(holder, netip.Addr{}); err != nil {
				t.Fatal(err)
			}
		}
		if l := allocate(t, a, "last", ""); !subnets[1].Contains(l.Addr) {
			t.Errorf("%s, want one of the subnet that has no leases any more", l.Addr)
		}
	})
}
