package kubernetes

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"weft/internal/nettest/labtest"
)

// manyPodsText describes pods that only hold an address.
const manyPodsText = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: many}, spec: {replicas: %d,
  selector: {matchLabels: {app: many}},
  template: {metadata: {labels: {app: many}}, spec: {nodeName: node1, terminationGracePeriodSeconds: 0, enableServiceLinks: false,
  automountServiceAccountToken: false, containers: [{name: c, image: "registry.k8s.io/pause:3.10", imagePullPolicy: Never}]}}}}`

// manyPodsTimeout is how long hundreds of pods may take to start, and to end, on a machine of two cores.
const manyPodsTimeout = 15 * time.Minute

// manyPods starts 300 pods on one node at once, and deletes them.
func (l *lab) manyPods(t *recorder) string {
	const pods = 300
	before := len(l.podLeases(t, 1))
	weft, kube := l.memory(t, "weft up"), l.memory(t, "weft-kube run")
	added := l.cniTimes(t, "set_up_pod")
	start := time.Now()
	l.apply(t, fmt.Sprintf(manyPodsText, pods))
	defer func() { _, _ = l.run(l.all.Context(), "k", "delete", "deployment", "many", "--ignore-not-found") }()
	labtest.Until(t, manyPodsTimeout, func() error {
		ready := l.kubectl(t, "get", "deployment", "many", "-o", "jsonpath={.status.readyReplicas}")
		if ready != strconv.Itoa(pods) {
			time.Sleep(time.Second) // kubectl is not free
			return fmt.Errorf("%s of %d pods are ready", ready, pods)
		}
		return nil
	})
	took := time.Since(start)
	addresses := strings.Fields(l.kubectl(t, "get", "pods", "-l", "app in (many, p)", "-o", "jsonpath={.items[*].status.podIPs[*].ip}"))
	slices.Sort(addresses)
	if different := len(slices.Compact(slices.Clone(addresses))); different != len(addresses) || different != (pods+2)*len(l.families()) {
		t.Errorf("%d pods have %d addresses, %d of them different", pods+2, len(addresses), different)
	}
	weftAfter, kubeAfter := l.memory(t, "weft up"), l.memory(t, "weft-kube run")
	times := l.cniTimes(t, "set_up_pod").since(added)

	start = time.Now()
	l.kubectl(t, "delete", "deployment", "many", "--wait=true")
	labtest.Until(t, manyPodsTimeout, func() error {
		if left := len(l.podLeases(t, 1)); left > before {
			time.Sleep(time.Second)
			return fmt.Errorf("%d leases are left, there were %d before", left, before)
		}
		return nil
	})
	deleted := time.Since(start)
	until(t, func() error { return errors.Join(l.onlyLivingLeases(t, 1), l.reach(t, "p1", "p2")) })
	repeated := len(strings.Fields(l.kubectl(t, "get", "events", "-n", "default", "--field-selector", "reason=FailedCreatePodSandBox",
		"-o", "jsonpath={.items[*].metadata.name}")))
	return fmt.Sprintf("%d pods ready after %.0f s, no address twice; CNI ADD: median %s, p99 %s, failed at first for %d pods; "+
		"memory of weft %d → %d MiB, of weft-kube %d → %d MiB; deleted after %.0f s, no lease is left", pods, took.Seconds(),
		times.quantile(0.5), times.quantile(0.99), repeated, weft, weftAfter, kube, kubeAfter, deleted.Seconds())
}

// memory returns the resident memory of a program of weft on node 1, in MiB.
func (l *lab) memory(t testing.TB, command string) int {
	t.Helper()
	for _, pid := range strings.Fields(l.onNode(t, 1, "pgrep", "-f", "^"+command)) {
		status, err := l.run(t.Context(), "node", "1", "cat", "/proc/"+pid+"/status")
		for line := range strings.Lines(status) {
			var kib int
			if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil && n == 1 && kib > 0 && l.ofNode1(t, pid) {
				return kib >> 10
			}
		}
	}
	t.Fatalf("no process %q on node 1", command)
	return 0
}

// ofNode1 reports whether a process is in the network namespace of node 1. All nodes see all processes of the machine.
func (l *lab) ofNode1(t testing.TB, pid string) bool {
	t.Helper()
	out, err := l.run(t.Context(), "node", "1", "sh", "-c", "[ /proc/"+pid+"/ns/net -ef /proc/self/ns/net ] && echo yes")
	return err == nil && out == "yes"
}

// histogram counts durations by upper bounds in seconds, each with those below it.
type histogram map[float64]float64

// cniTimes returns the durations of an operation of the network plugin on node 1, as containerd measures them.
func (l *lab) cniTimes(t testing.TB, operation string) histogram {
	t.Helper()
	return parseHistogram(l.onNode(t, 1, "curl", "-sS", "http://127.0.0.1:1338/v1/metrics"), operation)
}

// parseHistogram reads the durations of an operation of the network plugin from the metrics of containerd.
func parseHistogram(text, operation string) histogram {
	h := histogram{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		name, labels, ok := strings.Cut(lines.Text(), "{")
		if !ok || !strings.HasSuffix(name, "network_plugin_operations_duration_seconds_seconds_bucket") &&
			!strings.HasSuffix(name, "network_plugin_operations_duration_seconds_bucket") || !strings.Contains(labels, `"`+operation+`"`) {
			continue
		}
		_, bound, _ := strings.Cut(labels, `le="`)
		bound, value, _ := strings.Cut(bound, `"`)
		_, value, _ = strings.Cut(value, "} ")
		le, err := strconv.ParseFloat(bound, 64)
		count, countErr := strconv.ParseFloat(value, 64)
		if err == nil && countErr == nil {
			h[le] = count
		}
	}
	return h
}

// since returns what was counted after an earlier state.
func (h histogram) since(earlier histogram) histogram {
	out := histogram{}
	for bound, n := range h {
		out[bound] = n - earlier[bound]
	}
	return out
}

// quantile is a duration below which a share of the durations is, in seconds.
type quantile struct {
	value float64 // interpolated within a bucket of the histogram; NaN without any duration
	above bool    // value is the highest finite bound, and the quantile is above it
}

func (q quantile) String() string {
	switch {
	case math.IsNaN(q.value):
		return "unknown"
	case q.above:
		return fmt.Sprintf("above %g s", q.value)
	default:
		return fmt.Sprintf("%.2f s", q.value)
	}
}

// quantile returns the duration below which a share of the durations is.
func (h histogram) quantile(share float64) quantile {
	total := h[math.Inf(1)]
	if total == 0 {
		return quantile{value: math.NaN()}
	}
	below, low := 0.0, 0.0
	for _, bound := range slices.Sorted(maps.Keys(h)) {
		switch {
		case h[bound] < share*total:
			below, low = h[bound], bound
		case math.IsInf(bound, 1):
			return quantile{low, true}
		default:
			return quantile{value: low + (bound-low)*(share*total-below)/(h[bound]-below)}
		}
	}
	return quantile{low, true}
}

// TestQuantile needs no cluster.
func TestQuantile(t *testing.T) {
	const text = `x_network_plugin_operations_duration_seconds_bucket{operation_type="set_up_pod",le="0.1"} 5
x_network_plugin_operations_duration_seconds_bucket{operation_type="tear_down_pod",le="0.1"} 7
x_network_plugin_operations_duration_seconds_bucket{operation_type="set_up_pod",le="0.2"} 15
x_network_plugin_operations_duration_seconds_bucket{operation_type="set_up_pod",le="+Inf"} 16
`
	h := parseHistogram(text, "set_up_pod").since(histogram{0.1: 5, 0.2: 5, math.Inf(1): 5})
	for share, want := range map[float64]string{0.5: "0.16 s", 0.99: "above 0.2 s"} {
		if got := h.quantile(share).String(); got != want {
			t.Errorf("quantile %v is %s, want %s", share, got, want)
		}
	}
	if got := (histogram{}).quantile(0.5).String(); got != "unknown" {
		t.Errorf("median of none %v", got)
	}
}
