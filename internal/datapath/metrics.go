package datapath

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"weft/internal/guard"
	"weft/internal/metricdef"
	"weft/router"
	"weft/router/carrier"
	"weft/router/carrier/direct"
	"weft/router/carrier/vxlan"
)

var metrics metricdef.Table

// Metrics of the kernel path, of the guard and of the closed ports. The router has its own.
var (
	kernelPathUp = metrics.Gauge("kernel_path", "1 if there is a device through which the kernel can carry frames, else 0.")
	kernelFrames = metrics.Counter("kernel_frames_total",
		"Frames that the kernel carried by itself since its device was made, including probes of that path.",
		"direction").Values("direction", "receive", "transmit")
	kernelBytes = metrics.Counter("kernel_bytes_total", "Bytes of the frames that the kernel carried by itself.",
		"direction").Values("direction", "receive", "transmit")
	kernelDrops = metrics.Counter("kernel_drops_total", "Frames that the kernel's device could not send.")

	kernelRefused = metrics.Counter("kernel_refused_total",
		"Datagrams to the port of VXLAN that the rules of this host dropped, by reason: to this host from the address of no peer (unknown), "+
			"from a port of unprivileged users (users), or with another VNI (vni); to a peer from behind this host (forwarded), or from a "+
			"user of it (local); from pods to either (pods). Of WireGuard: anything but these "+
			"datagrams through the tunnel (tunnel). Of direct routing: packets with the addresses of pods and from no peer (unknown), or to "+
			"the bridge (host).", "reason").Values("reason", refusedReasons()...)
	nodePortDrops = metrics.Counter("node_port_drops_total", "Packets of pods to the ports of nodes, which were dropped.")

	guardPorts = metrics.Gauge("guard_ports",
		"Ports of pods that are bound to the addresses of their pods, and those that a request has opened.", "state").
		Values("state", "bound", "open")
	guardDrops = metrics.Counter("guard_drops_total",
		"Frames that the guard has dropped since its rules were made, by what was wrong with them.", "reason").Values("reason", guardReasons()...)
)

// repairsTotal counts the repairs of the host.
var repairsTotal = metrics.Counter("repairs_total",
	"Changes of this host by other programs that weft undid: to its links, addresses, rules and settings.",
	"kind").Values("kind", repairKinds()...)

// guardReasons returns the values of the label reason.
func guardReasons() (names []string) {
	for _, r := range guard.Reasons() {
		names = append(names, string(r))
	}
	return names
}

// refusedReasons returns the values of the label reason of what the rules of carriers drop, sorted.
func refusedReasons() []string {
	reasons := append(vxlan.FilterReasons(), direct.FilterReasons()...)
	slices.Sort(reasons)
	return slices.Compact(reasons)
}

// Metrics returns the metrics of this package, for documentation.
func Metrics() *metricdef.Table { return &metrics }

// Collector returns a collector of the metrics of router, kernel path and repairs. It has no router metrics until the datapath is up.
func (d *Datapath) Collector() prometheus.Collector { return collector{d} }

type collector struct{ d *Datapath }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	metrics.Describe(ch)
	(*router.Engine)(nil).Collector().Describe(ch) // which needs no engine
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	sample, ok := c.d.KernelSample()
	collectKernel(ch, sample, ok)
	counts := c.d.repairs.Counts()
	for _, kind := range repairsTotal.ValuesOf("kind") {
		repairsTotal.Send(ch, float64(counts[kind]), kind)
	}
	collectGuard(ch, c.d.GuardStatus())
	for reason, n := range c.d.kernelRefused() {
		kernelRefused.Send(ch, float64(n), reason)
	}
	if n, known := c.d.ports.dropped(); known {
		nodePortDrops.Send(ch, float64(n))
	}
	if e := c.d.current.Load(); e != nil {
		e.router.Collector().Collect(ch)
	}
}

func collectGuard(ch chan<- prometheus.Metric, s GuardStatus) {
	guardPorts.Send(ch, float64(s.Bound), "bound")
	guardPorts.Send(ch, float64(s.Open), "open")
	for _, r := range guard.Reasons() {
		if count, known := s.Dropped[r]; known {
			guardDrops.Send(ch, float64(count), string(r))
		}
	}
}

func collectKernel(ch chan<- prometheus.Metric, s carrier.Sample, ok bool) {
	kernelPathUp.SendBool(ch, ok)
	if !ok {
		return
	}
	kernelFrames.Send(ch, float64(s.TxFrames), "transmit")
	kernelFrames.Send(ch, float64(s.RxFrames), "receive")
	kernelBytes.Send(ch, float64(s.TxBytes), "transmit")
	kernelBytes.Send(ch, float64(s.RxBytes), "receive")
	kernelDrops.Send(ch, float64(s.TxDropped))
}
