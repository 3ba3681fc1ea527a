package podlink_test

import (
	"net/netip"
	"slices"
	"testing"

	"weft/internal/nettest/labtest"
	"weft/internal/podlink"
)

// TestPorts: pods on a bridge are found with their addresses, whatever the names of their namespaces.
func TestPorts(t *testing.T) {
	h := newHost(t)
	linker := inside{h}
	p, q := labtest.AddPod(t, h, "p"), labtest.AddPod(t, h, "q")
	want := map[string][]netip.Addr{}
	for i, spec := range []podlink.Spec{
		{Netns: p.Path(), HostName: "vweftp", Addresses: []podlink.Address{
			{Prefix: netip.MustParsePrefix("10.32.0.2/12")}, {Prefix: netip.MustParsePrefix("fd32::2/64")},
		}},
		{Netns: q.Path(), HostName: "vweftq", Addresses: []podlink.Address{{Prefix: netip.MustParsePrefix("10.32.0.3/12")}},
			Origin: podlink.Origin{Delegated: true, Runtime: "/usr/bin/containerd"}},
	} {
		spec.Ifname, spec.Bridge = []string{"eth0", "net1"}[i], "weave"
		if _, err := linker.Attach(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		for _, a := range spec.Addresses {
			want[spec.HostName] = append(want[spec.HostName], a.Prefix.Addr())
		}
	}
	labtest.Run(t, h.Space, "ip", "link", "add", "vweftother", "type", "veth", "peer", "name", "x") // on no bridge
	labtest.Run(t, p.Space, "ip", "addr", "add", "10.33.0.9", "peer", "10.33.0.10", "dev", "eth0")
	labtest.Run(t, p.Space, "ip", "addr", "add", "10.34.0.9/8", "dev", "lo") // of another interface
	want["vweftp"] = slices.Insert(want["vweftp"], 1, netip.MustParseAddr("10.33.0.9"))

	var ports []podlink.Port
	if err := h.Do(func() (err error) { ports, err = podlink.Ports("weave"); return err }); err != nil {
		t.Fatal(err)
	}
	if len(ports) != 2 {
		t.Fatalf("%+v, want two ports", ports)
	}
	for i := range ports {
		port := &ports[i]
		if err := h.Do(func() error {
			if !port.Look() {
				t.Errorf("%s was removed", port.Name)
			}
			return port.Err
		}); err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(port.Addrs, netip.Addr.Compare)
		if !slices.Equal(port.Addrs, want[port.Name]) || port.Delegated != (port.Name == "vweftq") {
			t.Errorf("%+v, want %v", *port, want[port.Name])
		}
	}

	if err := linker.Detach(t.Context(), "", "", "vweftp"); err != nil {
		t.Fatal(err)
	}
	_ = h.Do(func() error {
		for i := range ports {
			if here := ports[i].Look(); here != (ports[i].Name == "vweftq") {
				t.Errorf("%+v: there: %v", ports[i], here)
			}
		}
		none, err := podlink.Ports("nobridge")
		if len(none) > 0 || err != nil {
			t.Errorf("of no bridge: %v, %v", none, err)
		}
		return nil
	})
}
