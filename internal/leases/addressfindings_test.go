package leases

import (
	"errors"
	"net/netip"
	"testing"

	"weft/internal/health"
	"weft/internal/peer"
	"weft/internal/podlink"
	"weft/ipam"
	"weft/ipam/store/storetest"
)

type noNodes struct{}

func (noNodes) NodeName(peer.ID) string { return "b" }

// TestDelegatedAddressFindings: an address in the range that another IPAM plugin has assigned is a condition while this node does not get
// it from its owner.
func TestDelegatedAddressFindings(t *testing.T) {
	ranges := []netip.Prefix{netip.MustParsePrefix("10.32.0.0/24")}
	allocator, err := ipam.New(ipam.Config{Self: peer.ID{1}, Ranges: ranges, Store: storetest.NewMemory(), Gossip: nowhere{}})
	if err != nil {
		t.Fatal(err)
	}
	m := &Manager{cfg: Config{Ranges: ranges, Bridge: "weave", Allocator: allocator, Nodes: noNodes{}}}
	addr := netip.MustParseAddr("10.32.0.7")
	port := podlink.Port{Name: "vweftp", Delegated: true, Addrs: []netip.Addr{addr}}
	found := m.addressFindings(&survey{ports: []podlink.Port{port}, refused: map[netip.Addr]error{addr: errors.New("in use there")}})
	if len(found) != 1 || found[0].Code != health.DelegatedAddressInRange || found[0].Remedy == "" {
		t.Errorf("%+v", found)
	}
	if found := m.addressFindings(&survey{ports: []podlink.Port{port}}); len(found) != 0 {
		t.Errorf("leased here: %+v", found)
	}
}

// nowhere is an ipam.Gossip without a network.
type nowhere struct{}

func (nowhere) Broadcast([]byte)              {}
func (nowhere) Unicast(peer.ID, []byte) error { return nil }
