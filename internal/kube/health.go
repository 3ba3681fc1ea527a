package kube

import (
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"weft/internal/kube/policy"
)

// check is one thing that must be so before pods can be added.
type check string

// The checks.
const (
	checkPolicies check = "policies"
	checkDaemon   check = "daemon"
	checkPlugin   check = "plugin"
)

// errNotYet is what a check says before it has been made.
var errNotYet = errors.New("not yet")

// health is what is known to be well. The zero health is not.
type health struct {
	mu   sync.Mutex
	well map[check]error // guarded by mu
}

func (h *health) set(c check, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.well == nil {
		h.well = map[check]error{}
	}
	h.well[c] = err
}

func (h *health) get(c check) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err, known := h.well[c]
	if !known {
		err = errNotYet
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c, err)
	}
	return nil
}

// ready returns an error that says what stands in the way of a new pod.
func (h *health) ready() error {
	return errors.Join(h.get(checkDaemon), h.get(checkPolicies), h.get(checkPlugin))
}

// healthHandler serves what the kubelet and Prometheus ask for; nothing there changes anything.
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
	registry.MustRegister(drops{a})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}

// drops collects how many packets policies have dropped.
type drops struct{ a *Agent }

var dropsDesc = prometheus.NewDesc("weft_policy_dropped_packets_total", "Packets that network policies have dropped.", []string{"direction"}, nil)

// Describe implements prometheus.Collector.
func (drops) Describe(ch chan<- *prometheus.Desc) { ch <- dropsDesc }

// Collect implements prometheus.Collector.
func (d drops) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := bounded()
	defer cancel()
	dropped, err := d.a.cfg.Filter.Dropped(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(dropsDesc, err)
		return
	}
	for _, direction := range []policy.Direction{policy.Ingress, policy.Egress} {
		ch <- prometheus.MustNewConstMetric(dropsDesc, prometheus.CounterValue, float64(dropped[direction]), direction.String())
	}
}
