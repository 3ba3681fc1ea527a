package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"weft/internal/cpulatency"
	"weft/internal/ether"
	"weft/internal/health"
	"weft/internal/health/healthtest"
	"weft/internal/peer"
	"weft/internal/reach"
	"weft/internal/settings"
	"weft/router"
	"weft/router/carrier"
	"weft/router/drop"
	"weft/router/session"
)

// oneMember is a Membership with one other node.
type oneMember struct{ other Member }

func (m oneMember) Members() []Member { return []Member{m.other} }

// Member implements Membership.
func (m oneMember) Member(id peer.ID) (Member, bool) { return m.other, id == m.other.ID }

func (oneMember) Addrs() []netip.Addr     { return nil }
func (oneMember) Dead(peer.ID) bool       { return false }
func (oneMember) NodeName(peer.ID) string { return "relay" }

// beside returns a Datapath beside one other node, b.
func beside(m Member) *Datapath {
	m.Name, m.ID, m.Addr = "b", peer.ID{2}, netip.MustParseAddrPort("192.0.2.2:6784")
	d := &Datapath{settings: &settings.Config{Bridge: "weave", Port: 6783, Cipher: settings.CipherAuto}}
	d.cfg.Membership = oneMember{m}
	d.reach = reach.New(reachHost{d.cfg.Membership, &publisher{}}, slog.New(slog.DiscardHandler))
	return d
}

// TestMemberFindings: how a live peer is reached is a condition as long as that is not directly, and a cipher that both cannot use.
func TestMemberFindings(t *testing.T) {
	anyCipher := session.NewOffer(0, true)
	d := beside(Member{Hops: 1, Offer: anyCipher})
	healthtest.Want(t, "direct", d.memberFindings(), "")
	healthtest.Want(t, "relayed", beside(Member{Hops: 2, Offer: anyCipher}).memberFindings(), health.PeerRelayed, "Node b (", "through relay",
		"UDP port 6784")
	healthtest.Want(t, "not reached", beside(Member{Offer: anyCipher}).memberFindings(), health.PeerUnreachable, "Node b (", "192.0.2.2")
	d.settings.Cipher = session.AES256GCM.String()
	other := beside(Member{Hops: 1, Offer: session.NewOffer(session.ChaCha20Poly1305, true)})
	other.settings.Cipher = d.settings.Cipher
	healthtest.Want(t, "other cipher", other.memberFindings(), health.CipherMismatch, "b (192.0.2.2)", "--cipher")
	d.reach.SetDialOut(true)
	healthtest.Want(t, "dial out", d.memberFindings(), health.DialOutOnly, "--advertise", "UDP port 6784")
	d.reach.SetDialOut(false)
	healthtest.Want(t, "reached again", d.memberFindings(), "")
}

// TestHandshakeFindings: a peer that does not answer is a condition until it does, and senders without a secret for some minutes.
func TestHandshakeFindings(t *testing.T) {
	d := beside(Member{Hops: 1})
	silent := router.PeerStats{ID: peer.ID{2}, Handshakes: manyHandshakes, Addr: netip.MustParseAddrPort("192.0.2.2:6784")}
	healthtest.Want(t, "silent", d.handshakeFindings(router.Stats{Peers: []router.PeerStats{silent}}), health.HandshakeUnanswered, "Node b (",
		"at 192.0.2.2", "UDP port 6784")
	silent.Handshakes = 0
	healthtest.Want(t, "answers", d.handshakeFindings(router.Stats{Peers: []router.PeerStats{silent}}), "")
	drops := map[drop.Reason]uint64{drop.Secret: manyUnauthenticated + 1}
	healthtest.Want(t, "no secret", d.handshakeFindings(router.Stats{Drops: drops}), health.UnauthenticatedHandshakes, "101 handshakes")
}

// TestKernelFindings: a missing kernel path is a condition with its error, until there is one.
func TestKernelFindings(t *testing.T) {
	d, k := beside(Member{Hops: 1}), &kernelPath{kind: carrier.VXLAN}
	healthtest.Want(t, "none wanted", d.kernelFindings(kernelPaths{k}), "")
	err := errors.New("no vxlan")
	k.err.Store(&err)
	healthtest.Want(t, "down", d.kernelFindings(kernelPaths{k}), health.KernelPathDown, "no vxlan", "--datapath userspace")
	k.kind = carrier.Direct
	healthtest.Want(t, "down", d.kernelFindings(kernelPaths{k}), health.KernelPathDown, "no direct routing: no vxlan", "--direct-routing off")
	err = nil
	healthtest.Want(t, "up again", d.kernelFindings(kernelPaths{k}), "")
	now := time.Now()
	late := carrier.PeerStatus{ID: peer.ID{2}, Since: now.Add(-kernelPatience)}
	peers := []carrier.PeerStatus{late, {ID: peer.ID{3}, Since: now}, {ID: peer.ID{4}, State: carrier.Carrying}}
	if ids := unproven(peers, now); len(ids) != 1 {
		t.Errorf("%v are unproven, want the first", ids)
	}
}

// TestDuplicateFindings: an address that flaps is reported with where it is now.
func TestDuplicateFindings(t *testing.T) {
	mac := ether.Addr{2, 0, 0, 0, 0, 7}
	healthtest.Want(t, "none", duplicateFindings(nil), "")
	healthtest.Want(t, "IP", duplicateFindings([]router.Duplicate{{Addr: netip.MustParseAddr("10.32.0.7"), MAC: mac}}),
		health.DuplicateAddress,
		"10.32.0.7", mac.String(), "weft ip list")
	healthtest.Want(t, "MAC", duplicateFindings([]router.Duplicate{{MAC: mac}}), health.DuplicateMAC, mac.String(), "weft fdb")
	many := make([]router.Duplicate, 3*maxDuplicates)
	if got := duplicateFindings(many); len(got) != maxDuplicates {
		t.Errorf("%d findings, want %d", len(got), maxDuplicates)
	}
}

// TestOffloadFindings: missing offloads are reported, unless they were turned off.
func TestOffloadFindings(t *testing.T) {
	d := beside(Member{Hops: 1})
	healthtest.Want(t, "missing", d.offloadFindings(), health.OffloadMissing, "tso4", "ethtool -K")
	d.settings.Offload = settings.OffloadOff
	healthtest.Want(t, "turned off", d.offloadFindings(), "")
}

// TestBusyPollFindings: each cause for which --busy-poll has no effect is reported with what to do.
func TestBusyPollFindings(t *testing.T) {
	d := beside(Member{Hops: 1})
	healthtest.Want(t, "starting", d.busyPollFindings(), "")
	for _, c := range []struct {
		err  error
		want []string
	}{
		{cpulatency.ErrIgnored, []string{"cpuidle", "cpuidle_haltpoll.force=1"}},
		{fmt.Errorf("open: %w", fs.ErrNotExist), []string{"mount /dev/cpu_dma_latency"}},
		{fmt.Errorf("open: %w", fs.ErrPermission), []string{"access to /dev/cpu_dma_latency"}},
	} {
		e := &engines{}
		e.keeperErr.Store(&c.err)
		d.current.Store(e)
		healthtest.Want(t, c.err.Error(), d.busyPollFindings(), health.BusyPollUnavailable, c.want...)
	}
}
