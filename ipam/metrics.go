package ipam

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"weft/ipam/ring"
)

var (
	addressesDesc = prometheus.NewDesc("weft_ipam_addresses", "Addresses of a range: owned by this node; free, and leased, on this node; "+
		"available on it and, as they last said, on all nodes that are reachable; unreachable, as their owners are; total. "+
		"What is owned, unreachable and total counts addresses that are never given out as well.", []string{"range", "state"}, nil)
	pendingDesc   = prometheus.NewDesc("weft_ipam_pending", "Operations that wait for the founding of a range, for space of another node, or for news.", nil, nil)
	donationsDesc = prometheus.NewDesc("weft_ipam_donations_total", "Shares of a range that this node gave to nodes that asked (given), and was given for "+
		"asking (received).", []string{"direction"}, nil)
	conflictsDesc = prometheus.NewDesc("weft_ipam_conflicts_total", "Contradictions in what nodes say of who owns what: between two nodes (claim), "+
		"between a node and its own older state (old_state), between ranges divided apart (founding), and with what became of this node's "+
		"space while it was away (reclaimed).", []string{"kind"}, nil)
	reclaimsDesc = prometheus.NewDesc("weft_ipam_reclaims_total", "Shares of nodes that were gone, given to an heir by this node, all others having agreed.", nil, nil)
	readyDesc    = prometheus.NewDesc("weft_ipam_ready", "1 where every range is divided and this node gives out addresses of it, else 0.", nil, nil)
)

// conflict says what a contradiction is between. The zero conflict is invalid.
type conflict uint8

const (
	conflictClaim     conflict = iota + 1 // two nodes say that they own the same
	conflictOldState                      // a node runs with an old copy of its state
	conflictFounding                      // the range was divided twice
	conflictReclaimed                     // what this node owned was reclaimed while it was away
	numConflicts
)

var conflictNames = [numConflicts]string{
	conflictClaim: "claim", conflictOldState: "old_state", conflictFounding: "founding", conflictReclaimed: "reclaimed",
}

// counters counts what an Allocator has done since New, for metrics.
type counters struct {
	waiting         atomic.Int64 // operations that wait at present
	given, received atomic.Uint64
	reclaims        atomic.Uint64
	conflicts       [numConflicts]atomic.Uint64
}

// wait counts an operation that waits until what it returns is called.
func (c *counters) wait() (done func()) {
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
		case a.cfg.Reachable(total.Owner):
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
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{addressesDesc, pendingDesc, donationsDesc, conflictsDesc, reclaimsDesc, readyDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, n *atomic.Uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n.Load()), labels...)
	}
	var usages []usage
	c.alloc.view(func() {
		for _, p := range c.alloc.pools {
			usages = append(usages, c.alloc.usage(p))
		}
	})
	for _, u := range usages {
		gauge(addressesDesc, float64(u.owned), u.cidr, "owned")
		gauge(addressesDesc, float64(u.free), u.cidr, "free")
		gauge(addressesDesc, float64(u.leased), u.cidr, "leased")
		gauge(addressesDesc, float64(u.available), u.cidr, "available")
		gauge(addressesDesc, float64(u.unreachable), u.cidr, "unreachable")
		gauge(addressesDesc, float64(u.inTotal), u.cidr, "total")
	}
	counts := &c.alloc.counts
	gauge(pendingDesc, float64(counts.waiting.Load()))
	counter(donationsDesc, &counts.given, "given")
	counter(donationsDesc, &counts.received, "received")
	for kind := conflictClaim; kind < numConflicts; kind++ {
		counter(conflictsDesc, &counts.conflicts[kind], conflictNames[kind])
	}
	counter(reclaimsDesc, &counts.reclaims)
	ready := 0.0
	if c.alloc.Ready() {
		ready = 1
	}
	gauge(readyDesc, ready)
}
