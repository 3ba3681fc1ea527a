package ipam

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"weft/internal/metricdef"
	"weft/ipam/ring"
)

// metrics declares the metrics of an Allocator.
var metrics metricdef.Table

var (
	addressesMetric = metrics.Gauge("ipam_addresses",
		"Addresses of a range: owned by this node; free and leased on this node; available on this node and, as last reported, on all "+
			"reachable nodes; owned by unreachable nodes; total. The states owned, unreachable and total include addresses that are "+
			"never allocated.",
		"range", "state").Values("state", "available", "free", "leased", "owned", "total", "unreachable")
	pendingMetric = metrics.Gauge("ipam_pending",
		"Operations that wait for the first division of a range, for another node, or for a change of the ring.")
	donationsMetric = metrics.Counter("ipam_donations_total",
		"Shares of a range that this node granted to other nodes on request (given), and that it requested and received (received).",
		"direction").Values("direction", "given", "received")
	conflictsMetric = metrics.Counter("ipam_conflicts_total",
		"Contradictions between nodes about the owner of addresses: two nodes claim the same (claim), a node ran with an old copy of its "+
			"state (old_state), a range was divided twice (founding), addresses of this node were reclaimed while it was away (reclaimed).",
		"kind").Values("kind", conflictNames[1:]...)
	reclaimsMetric = metrics.Counter("ipam_reclaims_total",
		"Shares of dead nodes that this node assigned to a new owner, with the agreement of all other nodes.")
	readyMetric = metrics.Gauge("ipam_ready",
		"1 if every range is divided and this node allocates addresses of it, else 0.")
)

// Metrics returns the table of the metrics that Collector collects.
func Metrics() *metricdef.Table { return &metrics }

// conflict is the kind of a contradiction. The zero conflict is invalid.
type conflict uint8

const (
	conflictClaim     conflict = iota + 1 // two nodes claim the same addresses
	conflictOldState                      // a node runs with an old copy of its state
	conflictBootstrap                     // the range was divided twice
	conflictReclaimed                     // addresses of this node were reclaimed while it was away
	numConflicts
)

// conflictNames are the values of the label "kind".
var conflictNames = [numConflicts]string{
	conflictClaim: "claim", conflictOldState: "old_state", conflictBootstrap: "founding", conflictReclaimed: "reclaimed",
}

// counters counts the operations of an Allocator since New, for metrics.
type counters struct {
	waiting           atomic.Int64 // operations that wait at present
	granted, received atomic.Uint64
	reclaims          atomic.Uint64
	conflicts         [numConflicts]atomic.Uint64
}

// startWaiting counts an operation as waiting until the function that it returns is called.
func (c *counters) startWaiting() (done func()) {
	c.waiting.Add(1)
	return func() { c.waiting.Add(-1) }
}

// usage is how many addresses of a range are in which state.
type usage struct {
	cidr                                                 string
	owned, free, leased, available, unreachable, inTotal uint64
}

// usage returns the usage of p. The caller holds mu.
func (a *Allocator) usage(p *pool) usage {
	u := usage{cidr: p.prefix.String(), inTotal: p.ring.Size()}
	u.free = p.free(ring.Span{Start: 0, End: p.ring.Size()})
	u.leased = p.space.Len() - u.free
	u.available = u.free
	for _, total := range p.ring.Totals() {
		switch {
		case total.Owner == a.cfg.Self:
			u.owned = total.Addresses
		case a.cfg.Membership.Reachable(total.Owner):
			u.available += total.Free
		default:
			u.unreachable += total.Addresses
		}
	}
	return u
}

// collector reads an Allocator's counters when it is scraped.
type collector struct{ alloc *Allocator }

// Collector returns the metrics of the allocator.
func (a *Allocator) Collector() prometheus.Collector { return collector{a} }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) { metrics.Describe(ch) }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	var usages []usage
	c.alloc.view(func() {
		for _, p := range c.alloc.pools {
			usages = append(usages, c.alloc.usage(p))
		}
	})
	for _, u := range usages {
		addressesMetric.Send(ch, float64(u.owned), u.cidr, "owned")
		addressesMetric.Send(ch, float64(u.free), u.cidr, "free")
		addressesMetric.Send(ch, float64(u.leased), u.cidr, "leased")
		addressesMetric.Send(ch, float64(u.available), u.cidr, "available")
		addressesMetric.Send(ch, float64(u.unreachable), u.cidr, "unreachable")
		addressesMetric.Send(ch, float64(u.inTotal), u.cidr, "total")
	}
	counts := &c.alloc.counts
	pendingMetric.Send(ch, float64(counts.waiting.Load()))
	donationsMetric.Send(ch, float64(counts.granted.Load()), "given")
	donationsMetric.Send(ch, float64(counts.received.Load()), "received")
	for kind := conflictClaim; kind < numConflicts; kind++ {
		conflictsMetric.Send(ch, float64(counts.conflicts[kind].Load()), conflictNames[kind])
	}
	reclaimsMetric.Send(ch, float64(counts.reclaims.Load()))
	readyMetric.SendBool(ch, c.alloc.Ready())
}
