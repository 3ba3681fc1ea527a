package ipam

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// collected compares metrics of a with want, one series per line as Prometheus writes them; all of them if no names are
// given.
func collected(t *testing.T, a *Allocator, want string, names ...string) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(a.Collector())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		if len(names) > 0 && !slices.Contains(names, f.GetName()) {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			series := f.GetName()
			if len(labels) > 0 {
				series += "{" + strings.Join(labels, ",") + "}"
			}
			got = append(got, fmt.Sprint(series, " ", m.GetGauge().GetValue()+m.GetCounter().GetValue()))
		}
	}
	if diff := cmp.Diff(strings.Split(strings.TrimSpace(want), "\n"), got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

// TestCollector follows two nodes: one bootstraps, grants a share to the other, and dies.
func TestCollector(t *testing.T) {
	bubble(t, 2, func(t *testing.T, b *bus) {
		a := b.nodes[0].start(b.nodes[0].config(1, "10.32.0.0/24"))
		collected(t, a, "weft_ipam_ready 0", "weft_ipam_ready")
		if err := a.Prime(context.Background()); err != nil {
			t.Fatal(err)
		}
		allocate(t, a, "x", "")
		j := b.nodes[1].start(b.nodes[1].config(2, "10.32.0.0/24"))
		collected(t, j, `
weft_ipam_addresses{range="10.32.0.0/24",state="available"} 0
weft_ipam_addresses{range="10.32.0.0/24",state="free"} 0
weft_ipam_addresses{range="10.32.0.0/24",state="leased"} 0
weft_ipam_addresses{range="10.32.0.0/24",state="owned"} 0
weft_ipam_addresses{range="10.32.0.0/24",state="total"} 256
weft_ipam_addresses{range="10.32.0.0/24",state="unreachable"} 0`, "weft_ipam_addresses")
		b.pushPull(b.nodes[1], b.nodes[0])
		b.eventually("ready", j.Ready)
		time.Sleep(20 * time.Second) // until the free counts are published
		collected(t, a, `
weft_ipam_addresses{range="10.32.0.0/24",state="available"} 253
weft_ipam_addresses{range="10.32.0.0/24",state="free"} 126
weft_ipam_addresses{range="10.32.0.0/24",state="leased"} 1
weft_ipam_addresses{range="10.32.0.0/24",state="owned"} 128
weft_ipam_addresses{range="10.32.0.0/24",state="total"} 256
weft_ipam_addresses{range="10.32.0.0/24",state="unreachable"} 0
weft_ipam_conflicts_total{kind="claim"} 0
weft_ipam_conflicts_total{kind="founding"} 0
weft_ipam_conflicts_total{kind="old_state"} 0
weft_ipam_conflicts_total{kind="reclaimed"} 0
weft_ipam_donations_total{direction="given"} 1
weft_ipam_donations_total{direction="received"} 0
weft_ipam_pending 0
weft_ipam_ready 1
weft_ipam_reclaims_total 0`)
		collected(t, j, `
weft_ipam_donations_total{direction="given"} 0
weft_ipam_donations_total{direction="received"} 1`, "weft_ipam_donations_total")
		b.nodes[0].crash()
		collected(t, j, `
weft_ipam_addresses{range="10.32.0.0/24",state="available"} 127
weft_ipam_addresses{range="10.32.0.0/24",state="free"} 127
weft_ipam_addresses{range="10.32.0.0/24",state="leased"} 0
weft_ipam_addresses{range="10.32.0.0/24",state="owned"} 128
weft_ipam_addresses{range="10.32.0.0/24",state="total"} 256
weft_ipam_addresses{range="10.32.0.0/24",state="unreachable"} 128`, "weft_ipam_addresses")
		if _, err := j.Reclaim(context.Background(), nodeID(0)); err != nil {
			t.Fatal(err)
		}
		collected(t, j, "weft_ipam_reclaims_total 1", "weft_ipam_reclaims_total")
	})
}

func TestCollectorCountsWaitingOperations(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *bus) {
		a := b.nodes[0].start(b.nodes[0].config(2, "10.32.0.0/24"))
		done := make(chan error)
		for range 2 {
			go func() { done <- a.Prime(context.Background()) }()
		}
		synctest.Wait()
		collected(t, a, "weft_ipam_pending 2", "weft_ipam_pending")
		for range 2 {
			if err := <-done; err == nil {
				t.Error("one of two bootstrap nodes is ready")
			}
		}
		collected(t, a, "weft_ipam_pending 0", "weft_ipam_pending")
	})
}

func TestCollectorCountsConflicts(t *testing.T) {
	a, _ := lone(t, 0, "10.32.0.0/24")
	b, _ := lone(t, 1, "10.32.0.0/24")
	for _, x := range []*Allocator{a, b} {
		if _, err := x.Allocate(t.Context(), "x", whole); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Merge(b.State()); err == nil {
		t.Error("a ring of another cluster was merged")
	}
	if err := a.Merge(append([]byte{messageVersion}, ringSection(a, 1, 0, 256, 1, 1000, 254)...)); err != nil {
		t.Fatal(err)
	}
	collected(t, a, `
weft_ipam_conflicts_total{kind="claim"} 1
weft_ipam_conflicts_total{kind="founding"} 1
weft_ipam_conflicts_total{kind="old_state"} 0
weft_ipam_conflicts_total{kind="reclaimed"} 0`, "weft_ipam_conflicts_total")
	if problems, err := testutil.CollectAndLint(a.Collector()); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
