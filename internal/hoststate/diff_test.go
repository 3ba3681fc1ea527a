package hoststate_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weft/internal/ether"
	"weft/internal/hoststate"
)

var (
	tapMAC = ether.Addr{2, 1}
	brMAC  = ether.Addr{2, 2}
	addr4  = netip.MustParsePrefix("10.40.0.1/12")
	addr6  = netip.MustParsePrefix("fd32::1/64")
)

// desired is a host with everything.
func desired() hoststate.Desired {
	return hoststate.Desired{
		Bridge:    hoststate.Bridge{Name: "weave", MTU: 1400, MAC: brMAC, Made: true},
		Tunnels:   []hoststate.Tunnel{{Name: "weft0", MTU: 1400, MAC: tapMAC}, {Name: "weftvx", MTU: 1400}},
		Pods:      map[string]hoststate.Pod{"vweft1": {MTU: 1400, Hairpin: true}},
		Addresses: []netip.Prefix{addr4, addr6},
		Settings: []hoststate.Setting{
			{Path: "ipv4/ip_forward", Want: "1"},
			{Path: "ipv4/conf/weave/rp_filter", Want: "2", Wrong: "1", Above: "ipv4/conf/all/rp_filter"},
		},
	}
}

// port returns the flags of a port that is right.
func port(isolated, hairpin bool) map[hoststate.Flag]bool {
	return map[hoststate.Flag]bool{
		hoststate.Isolated: isolated, hoststate.Hairpin: hairpin, hoststate.Learning: true, hoststate.Flood: true,
		hoststate.McastFlood: true, hoststate.BcastFlood: true, hoststate.Forwarding: true, hoststate.RootBlock: false,
	}
}

// observed is a host that is as desired.
func observed() hoststate.Observed {
	link := func(name, kind string, l hoststate.Link) hoststate.Link {
		l.Name, l.Kind, l.Up, l.Running, l.MTU = name, kind, true, true, 1400
		return l
	}
	return hoststate.Observed{
		Links: map[string]hoststate.Link{
			"weave": link("weave", "bridge", hoststate.Link{MAC: brMAC, Options: map[hoststate.Option]uint32{
				hoststate.STP: 0, hoststate.VLANFiltering: 0, hoststate.Snooping: 0, hoststate.GroupForward: 0, hoststate.AgingTime: 30000,
				hoststate.NoLinkLocalLearn: 1}}),
			"weft0":  link("weft0", "tun", hoststate.Link{Master: "weave", MAC: tapMAC, Port: port(true, false)}),
			"weftvx": link("weftvx", "vxlan", hoststate.Link{Master: "weave", Port: port(true, false)}),
			"vweft1": link("vweft1", "veth", hoststate.Link{Index: 9, Master: "weave", Port: port(false, true)}),
			"eth0":   {Name: "eth0", MTU: 1500},
		},
		Addresses: []netip.Prefix{addr4, netip.MustParsePrefix("fe80::1/64"), addr6},
		Routes:    []netip.Prefix{addr4.Masked(), addr6.Masked()},
		Local:     []netip.Prefix{netip.MustParsePrefix("10.40.0.1/32"), netip.MustParsePrefix("fd32::1/128")},
		Settings:  map[string]string{"ipv4/ip_forward": "1", "ipv4/conf/weave/rp_filter": "2", "ipv4/conf/all/rp_filter": "1"},
	}
}

// change changes a link.
func change(o *hoststate.Observed, name string, f func(*hoststate.Link)) {
	l := o.Links[name]
	f(&l)
	o.Links[name] = l
}

func TestDiff(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*hoststate.Desired, *hoststate.Observed)
		want   []string // kinds and objects
	}{
		"as desired": {func(*hoststate.Desired, *hoststate.Observed) {}, nil},
		"no bridge": {func(_ *hoststate.Desired, o *hoststate.Observed) { delete(o.Links, "weave") },
			[]string{"bridge weave"}},
		"another device has the bridge's name": {func(_ *hoststate.Desired, o *hoststate.Observed) {
			o.Links["weave"] = hoststate.Link{Name: "weave", Kind: "dummy"}
		}, []string{"bridge weave"}},
		"the bridge's MAC flushed": {func(_ *hoststate.Desired, o *hoststate.Observed) { o.Deaf = true }, []string{"own_mac weave"}},
		"no ports": {func(_ *hoststate.Desired, o *hoststate.Observed) {
			delete(o.Links, "weft0")
			delete(o.Links, "vweft1")
		}, nil},
		"tunnel in another bridge": {func(_ *hoststate.Desired, o *hoststate.Observed) {
			change(o, "weft0", func(l *hoststate.Link) { l.Master = "br1"; l.Port = port(false, false) })
		}, []string{"master weft0"}},
		"tunnel not isolated, hairpin on": {func(_ *hoststate.Desired, o *hoststate.Observed) {
			change(o, "weftvx", func(l *hoststate.Link) { l.Port = port(false, true) })
		}, []string{"port_flag weftvx isolated", "port_flag weftvx hairpin"}},
		"tunnel down, other MTU and MAC": {func(_ *hoststate.Desired, o *hoststate.Observed) {
			change(o, "weft0", func(l *hoststate.Link) { l.Up, l.MTU, l.MAC = false, 1300, brMAC })
		}, []string{"mtu weft0", "mac weft0", "up weft0"}},
		"port blocked": {func(_ *hoststate.Desired, o *hoststate.Observed) { o.Links["weft0"].Port[hoststate.Forwarding] = false },
			[]string{"port_flag weft0 forwarding"}},
		"port without carrier": {func(_ *hoststate.Desired, o *hoststate.Observed) {
			o.Links["weft0"].Port[hoststate.Forwarding] = false
			change(o, "weft0", func(l *hoststate.Link) { l.Running = false })
		}, nil},
		"port does not flood": {func(_ *hoststate.Desired, o *hoststate.Observed) {
			o.Links["vweft1"].Port[hoststate.BcastFlood] = false
		},
			[]string{"port_flag vweft1 bcast_flood"}},
		"bridge down, other MTU and MAC": {func(_ *hoststate.Desired, o *hoststate.Observed) {
			change(o, "weave", func(l *hoststate.Link) { l.Up, l.MTU, l.MAC, l.NoARP = false, 1300, tapMAC, true })
			o.Routes = nil // which return when it is up
		}, []string{"mac weave", "mtu weave", "arp weave", "up weave"}},
		"options": {func(_ *hoststate.Desired, o *hoststate.Observed) {
			for option := range o.Links["weave"].Options {
				o.Links["weave"].Options[option] = 8
			}
		}, []string{"bridge_option weave stp_state", "bridge_option weave vlan_filtering", "bridge_option weave mcast_snooping",
			"bridge_option weave group_fwd_mask", "bridge_option weave " + string(hoststate.AgingTime),
			"bridge_option weave no_linklocal_learn"}},
		"options of a bridge of another program": {func(d *hoststate.Desired, o *hoststate.Observed) {
			d.Bridge.Made = false
			o.Links["weave"].Options[hoststate.STP] = 1
		}, nil},
		"ports that wait for STP": {func(d *hoststate.Desired, o *hoststate.Observed) {
			d.Bridge.Made = false
			o.Links["weave"].Options[hoststate.STP] = 1
			o.Links["weft0"].Port[hoststate.Forwarding], o.Links["vweft1"].Port[hoststate.Forwarding] = false, false
		}, nil},
		"pod off the bridge and down": {func(_ *hoststate.Desired, o *hoststate.Observed) {
			change(o, "vweft1", func(l *hoststate.Link) { l.Master, l.Port, l.Up = "", nil, false })
		}, []string{"master vweft1", "up vweft1"}},
		"pod in another bridge": {func(_ *hoststate.Desired, o *hoststate.Observed) {
			change(o, "vweft1", func(l *hoststate.Link) { l.Master, l.Up = "br1", false })
		}, nil},
		"pod isolated, without hairpin": {func(_ *hoststate.Desired, o *hoststate.Observed) {
			change(o, "vweft1", func(l *hoststate.Link) { l.Port = port(true, false) })
		}, []string{"port_flag vweft1 isolated", "port_flag vweft1 hairpin"}},
		"pod with a lower MTU":   {podMTU(1300, 1400), []string{"mtu vweft1"}},
		"pod with a higher MTU":  {podMTU(1500, 1400), nil},
		"pod with the overlay's": {podMTU(1400, 1400), nil},
		"pod that was not known": {func(d *hoststate.Desired, _ *hoststate.Observed) { d.Pods = nil }, nil},
		"addresses flushed": {func(_ *hoststate.Desired, o *hoststate.Observed) { o.Addresses, o.Routes = nil, nil },
			[]string{"address 10.40.0.1/12", "address fd32::1/64"}},
		"address with another length": {func(_ *hoststate.Desired, o *hoststate.Observed) {
			o.Addresses = []netip.Prefix{netip.MustParsePrefix("10.40.0.1/32"), addr6}
		}, nil},
		"routes flushed": {func(_ *hoststate.Desired, o *hoststate.Observed) { o.Routes = nil },
			[]string{"route 10.40.0.1/12", "route fd32::1/64"}},
		"setting changed": {func(_ *hoststate.Desired, o *hoststate.Observed) { o.Settings["ipv4/ip_forward"] = "0" },
			[]string{"setting ipv4/ip_forward"}},
		"setting that the kernel lacks": {func(_ *hoststate.Desired, o *hoststate.Observed) { delete(o.Settings, "ipv4/ip_forward") }, nil},
		"strict reverse path by the bridge": {func(_ *hoststate.Desired, o *hoststate.Observed) {
			o.Settings["ipv4/conf/weave/rp_filter"], o.Settings["ipv4/conf/all/rp_filter"] = "1", "0"
		}, []string{"setting ipv4/conf/weave/rp_filter"}},
		"strict reverse path by all": {func(_ *hoststate.Desired, o *hoststate.Observed) { o.Settings["ipv4/conf/weave/rp_filter"] = "0" },
			[]string{"setting ipv4/conf/weave/rp_filter"}},
		"no reverse path": {func(_ *hoststate.Desired, o *hoststate.Observed) {
			o.Settings["ipv4/conf/weave/rp_filter"], o.Settings["ipv4/conf/all/rp_filter"] = "0", "0"
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d, o := desired(), observed()
			c.change(&d, &o)
			var got []string
			for _, a := range hoststate.Diff(d, o) {
				got = append(got, string(a.Kind)+" "+a.Object())
				if a.String() == "" {
					t.Errorf("%+v has no text", a)
				}
			}
			if diff := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// podMTU sets the MTU of the pod's host end, which was 1410 or 1400, and that of the overlay.
func podMTU(pod, node int) func(*hoststate.Desired, *hoststate.Observed) {
	return func(d *hoststate.Desired, o *hoststate.Observed) {
		d.Pods["vweft1"] = hoststate.Pod{MTU: 1410, Hairpin: true}
		if pod > 1410 {
			d.Pods["vweft1"] = hoststate.Pod{MTU: 1400, Hairpin: true}
		}
		d.PodMTU = node
		change(o, "vweft1", func(l *hoststate.Link) { l.MTU = pod })
	}
}

// TestMovedPods: a pod's port in another bridge is reported, one on no bridge is not.
func TestMovedPods(t *testing.T) {
	d, o := desired(), observed()
	d.Pods["vweft2"] = hoststate.Pod{}
	change(&o, "vweft1", func(l *hoststate.Link) { l.Master = "br1" })
	if moved := hoststate.MovedPods(d, o); len(moved) != 1 || moved[0].Name != "vweft1" || moved[0].Master != "br1" {
		t.Errorf("%+v", moved)
	}
}
