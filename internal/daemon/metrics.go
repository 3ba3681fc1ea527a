package daemon

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"weft/internal/api"
	"weft/mesh"
	"weft/router"
	"weft/router/underlay"
	"weft/router/vxlan"
)

// Descriptions of what only the whole node knows; its engines have their own.
var (
	buildDesc = prometheus.NewDesc("weft_build_info", "Always 1: the version of weft, and of Go that built it.", []string{"version", "goversion"}, nil)
	readyDesc = prometheus.NewDesc("weft_ready", "1 where a pod could join now, else 0.", nil, nil)
	warnDesc  = prometheus.NewDesc("weft_warnings", "Warnings in the status: \"weft status\" has them, each with its mend.", nil, nil)
	infoDesc  = prometheus.NewDesc("weft_peer_info", "Always 1: the name and the data address of a peer that is alive.", []string{"peer", "name", "addr"}, nil)
	linkDesc  = prometheus.NewDesc("weft_peer_link", "How a peer that is alive is reached: 1 for what is so, of direct, relay and none, else 0.",
		[]string{"peer", "link"}, nil)
	kernelDesc = prometheus.NewDesc("weft_peer_kernel", "1 where the kernel carries the frames to a peer that is alive, else 0: then they pass userspace.",
		[]string{"peer"}, nil)
	pathDesc        = prometheus.NewDesc("weft_kernel_path", "1 where there is a device by which the kernel can carry frames, else 0.", nil, nil)
	kernelFrameDesc = prometheus.NewDesc("weft_kernel_frames_total", "Frames that the kernel has carried by itself, since its device was made, probes of that path "+
		"among them. No other metric counts them.", []string{"direction"}, nil)
	kernelByteDesc = prometheus.NewDesc("weft_kernel_bytes_total", "Bytes of the frames that the kernel has carried by itself.", []string{"direction"}, nil)
	kernelDropDesc = prometheus.NewDesc("weft_kernel_drops_total", "Frames that the kernel's own device could not send.", nil, nil)
)

// registry returns all metrics of the node, read when they are scraped. members says who is in the network, kernel what
// the kernel has carried, if there is a device for that.
func (d *Daemon) registry(members func() []mesh.Member, kernel func() (vxlan.Sample, bool)) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		d.mesh.Collector(), d.ipam.Collector(), underlay.Collector(d.conns),
		routerCollector{d}, kernelCollector(kernel), nodeCollector{d, members},
	)
	if d.dns != nil {
		registry.MustRegister(d.dns.Collector())
	}
	return registry
}

// nodeCollector collects what only the whole node knows.
type nodeCollector struct {
	d       *Daemon
	members func() []mesh.Member
}

// Describe implements prometheus.Collector.
func (nodeCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildDesc, readyDesc, warnDesc, infoDesc, linkDesc, kernelDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c nodeCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := gauges(ch)
	gauge(buildDesc, 1, c.d.cfg.Version, runtime.Version())
	gauge(readyDesc, zeroOrOne(c.d.ready()))
	gauge(warnDesc, float64(len(c.d.warnings())))
	for _, m := range c.members() {
		if !isLivePeer(m) {
			continue
		}
		id := m.ID.String()
		gauge(infoDesc, 1, id, m.Name, m.DataAddr().String())
		link, _ := linkOf(m)
		for _, l := range api.Links() {
			gauge(linkDesc, zeroOrOne(l == link), id, string(l))
		}
		gauge(kernelDesc, zeroOrOne(c.d.datapathTo(m.ID) == api.DatapathKernel), id)
	}
}

// routerCollector hands on the router's metrics while there is a router.
type routerCollector struct{ d *Daemon }

// Describe implements prometheus.Collector.
func (routerCollector) Describe(ch chan<- *prometheus.Desc) {
	(*router.Engine)(nil).Collector().Describe(ch) // which looks at no engine
}

// Collect implements prometheus.Collector.
func (c routerCollector) Collect(ch chan<- prometheus.Metric) {
	if p := c.d.plane.Load(); p != nil {
		p.router.Collector().Collect(ch)
	}
}

// kernelCollector collects what the kernel has carried by itself.
type kernelCollector func() (vxlan.Sample, bool)

// Describe implements prometheus.Collector.
func (kernelCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{pathDesc, kernelFrameDesc, kernelByteDesc, kernelDropDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c kernelCollector) Collect(ch chan<- prometheus.Metric) {
	s, ok := c()
	gauges(ch)(pathDesc, zeroOrOne(ok))
	if !ok {
		return
	}
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	counter(kernelFrameDesc, s.TxFrames, "transmit")
	counter(kernelFrameDesc, s.RxFrames, "receive")
	counter(kernelByteDesc, s.TxBytes, "transmit")
	counter(kernelByteDesc, s.RxBytes, "receive")
	counter(kernelDropDesc, s.TxDropped)
}

// gauges returns a function that sends a gauge to ch.
func gauges(ch chan<- prometheus.Metric) func(d *prometheus.Desc, v float64, labels ...string) {
	return func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
}

func zeroOrOne(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
