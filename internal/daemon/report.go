package daemon

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/vishvananda/netlink"

	"weft/internal/api"
	"weft/internal/dns"
)

// handleReport answers GET /v1/report: all that a bug report needs. Secrets, keys and what pods say are not in it; names and addresses
// are, as nothing could be told without them.
func (d *Daemon) handleReport(r *http.Request, _ none) (api.Report, error) {
	report := api.Report{
		At: time.Now(), Status: d.status(), Peers: d.peers(), IPAM: d.ipamStatus(), FDB: d.fdb(), Routes: d.routes(), Leases: leaseDocs(d.ipam.Leases()),
		Names:  d.nameDocs(func(dns.Entry) bool { return true }),
		Checks: d.checks(r.Context()), Flags: map[string]string{},
		Host: hostFacts(), Log: d.recent.all(), Goroutines: goroutines(), Metrics: d.metricsText(),
	}
	for _, s := range allSettings() {
		report.Flags[s.flag] = settingText(s.value(&d.cfg))
	}
	return report, nil
}

// checks returns what the node finds of its host. Its targets it does not dial for that: it does so all the time.
func (d *Daemon) checks(ctx context.Context) []api.Check {
	cfg := d.cfg
	cfg.Peers = nil
	found := Doctor(ctx, cfg)
	for i, c := range found {
		if c.Name == checkPeers {
			found[i] = targetsFound(d.mesh.TargetStatus(), cfg.Port).doc(checkPeers)
		}
	}
	return found
}

// settingText writes what a flag is set to as one would on the command line: an address that is not set is empty.
func settingText(v any) string {
	if ip, ok := v.(netip.Addr); ok && !ip.IsValid() {
		return ""
	}
	return fmt.Sprint(v)
}

// routesMost bounds how many routes are told: a router of the Internet has a million.
const routesMost = 4096

// hostFacts returns what the host is and what its network looks like.
func hostFacts() api.Host {
	h := api.Host{Kernel: kernelRelease(), Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), Go: runtime.Version()}
	links, err := netlink.LinkList()
	if err != nil {
		h.Errors = append(h.Errors, err.Error())
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	for _, l := range links {
		a := l.Attrs()
		doc := api.HostLink{Name: a.Name, Kind: l.Type(), MTU: a.MTU, Master: names[a.MasterIndex], State: a.OperState.String(), Addresses: []string{}}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			h.Errors = append(h.Errors, err.Error())
		}
		for _, addr := range addrs {
			doc.Addresses = append(doc.Addresses, addr.IPNet.String())
		}
		h.Links = append(h.Links, doc)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		h.Errors = append(h.Errors, err.Error())
	}
	texts, left := routeTexts(routes, names)
	if h.Routes = texts; left > 0 {
		h.Errors = append(h.Errors, fmt.Sprintf("%d routes more are left out", left))
	}
	return h
}

// routeText writes a route as "ip route" does; names are those of the interfaces, by index.
func routeText(r netlink.Route, names map[int]string) string {
	text := r.Dst.String()
	if r.Gw != nil {
		text += " via " + r.Gw.String()
	}
	if name := names[r.LinkIndex]; name != "" {
		text += " dev " + name
	}
	return text
}

// routeTexts returns routes as text, and how many are left out.
func routeTexts(routes []netlink.Route, names map[int]string) (texts []string, left int) {
	for _, r := range routes[:min(len(routes), routesMost)] {
		texts = append(texts, routeText(r, names))
	}
	return texts, len(routes) - len(texts)
}

// goroutinesMost bounds what is told of goroutines, in bytes.
const goroutinesMost = 64 << 10

// goroutines returns where all goroutines are.
func goroutines() string {
	var b bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&b, 1) // to memory
	return string(b.Bytes()[:min(b.Len(), goroutinesMost)])
}

// metricsText returns all metrics as a scrape would have them.
func (d *Daemon) metricsText() string {
	families, err := d.registry(d.mesh.Members, d.kernelSample).Gather()
	if err != nil {
		return err.Error()
	}
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return err.Error()
		}
	}
	return b.String()
}
