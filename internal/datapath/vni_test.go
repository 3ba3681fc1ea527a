package datapath

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/mesh/topology"
	"weft/router/carrier/vxlan"
)

// publisher is a Gossip that notes the VNIs that it publishes.
type publisher struct{ vnis []uint32 }

func (*publisher) SetLinks(topology.Links)    {}
func (*publisher) FromTunnel(peer.ID, []byte) {}

func (p *publisher) SetVNI(vni uint32)     { p.vnis = append(p.vnis, vni) }
func (p *publisher) SetDirect([]byte)      {}
func (p *publisher) SetGateway(ether.Addr) {}

// TestVNIOfHostileMembers: members that agree on another VNI each second make this node follow a few times at once, and then seldom. It
// still follows the last of them, without a further change of the membership.
func TestVNIOfHostileMembers(t *testing.T) {
	gossip := &publisher{}
	d := &Datapath{log: slog.New(slog.DiscardHandler), cfg: Config{Gossip: gossip}}
	k := &kernelPath{}
	d.vni.Store(1000)
	now := time.Now()
	follow := func(vni uint32) {
		run := &kernelRun{}
		run.ctx, run.stop = context.WithCancel(t.Context())
		k.current.Store(run)
		before := d.vni.Load()
		d.followVNI(k, []Member{{VNI: vni}, {VNI: vni}}, now)
		if changed := d.vni.Load() != before; changed != run.renewed.Load() || changed == d.vniWaits.Load() && vni != before {
			t.Fatalf("VNI %d to %d: made again %v, waits %v", before, d.vni.Load(), run.renewed.Load(), d.vniWaits.Load())
		}
	}
	for i := range uint32(3600) {
		follow(2000 + i%2)
		now = now.Add(time.Second)
	}
	if n := len(gossip.vnis); n < vxlan.FreeChanges || n > 25 {
		t.Errorf("%d changes in an hour", n)
	}
	for range int(vxlan.LongestPause / time.Second) { // retryVNI
		follow(4000)
		now = now.Add(time.Second)
	}
	if got := d.vni.Load(); got != 4000 || d.vniWaits.Load() {
		t.Errorf("VNI %d in the end, waits: %v", got, d.vniWaits.Load())
	}
	now = now.Add(vxlan.CalmTime)
	before := len(gossip.vnis)
	for i := range uint32(vxlan.FreeChanges) {
		follow(5000 + i)
	}
	if n := len(gossip.vnis) - before; n != vxlan.FreeChanges {
		t.Errorf("%d changes after calm, want %d at once", n, vxlan.FreeChanges)
	}
}
