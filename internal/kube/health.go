package kube

import (
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"weft/internal/kube/firewall"
	"weft/internal/kube/policy"
	"weft/internal/metricdef"
)

// check is one condition of the node being ready for new pods.
type check string

// Checks of a node.
const (
	checkPolicies check = "policies"
	checkDaemon   check = "daemon"
	checkPlugin   check = "plugin"
	checkBridged  check = "bridged packets"
)

// errNotYet is the result of a check that has not run yet.
var errNotYet = errors.New("not checked yet")

// health holds the latest result of each check. In the zero health no check has run. Its methods may be called concurrently.
type health struct {
	mu      sync.Mutex
	results map[check]error // guarded by mu; nil: passed
}

func (h *health) set(c check, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.results == nil {
		h.results = map[check]error{}
	}
	h.results[c] = err
}

func (h *health) get(c check) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err, known := h.results[c]
	if !known {
		err = errNotYet
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c, err)
	}
	return nil
}

// ready returns nil if a pod can be added, else an error that names all failed checks.
func (h *health) ready() error {
	return errors.Join(h.get(checkDaemon), h.get(checkPolicies), h.get(checkBridged), h.get(checkPlugin))
}

// healthHandler serves the probes of the kubelet and the metrics. All requests are read-only.
func (a *Agent) healthHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := a.health.ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{a.cfg.Filter, a.enforcer.domains, a.restored})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}

// collector collects the number of packets that policies have dropped, of addresses of domains, and of restored settings.
type collector struct {
	filter   firewall.Firewall
	domains  *domainNames
	restored func() map[string]uint64 // by what was restored
}

// restored returns how often the agent has restored what other programs changed.
func (a *Agent) restored() map[string]uint64 {
	return map[string]uint64{"rules": a.enforcer.restored.Load(), "bridged_packets": a.bridged.restored.Load()}
}

// Metrics of the agent.
var (
	metrics        metricdef.Table
	droppedPackets = metrics.Counter("policy_dropped_packets_total", "Packets that network policies have dropped.", "direction")
	restoredTotal  = metrics.Counter("policy_restored_total",
		"How often rules of policies, or settings that they need, were restored after another program had changed them.", "what")
	domainAddresses = metrics.Gauge("policy_domain_addresses", "Addresses that DNS answers gave the domain names of policies.")
	domainAnswers   = metrics.Counter("policy_domain_answers_total", "DNS answers with addresses for domain names of policies.")
)

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) { metrics.Describe(ch) }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := bounded()
	defer cancel()
	for what, n := range c.restored() {
		restoredTotal.Send(ch, float64(n), what)
	}
	domainAddresses.Send(ch, float64(c.domains.known.Load()))
	domainAnswers.Send(ch, float64(c.domains.received.Load()))
	dropped, err := c.filter.Dropped(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
		return
	}
	for _, direction := range []policy.Direction{policy.Ingress, policy.Egress} {
		droppedPackets.Send(ch, float64(dropped[direction]), direction.String())
	}
}
