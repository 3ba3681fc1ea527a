package hoststate

import "strconv"

// Setting is a network setting of the kernel.
type Setting struct {
	Path string // below /proc/sys/net
	Want string
	// Wrong is the only value that is wrong; empty: every value but Want is.
	Wrong string
	// Above is the path of a setting that applies instead where its value is higher; empty: none.
	Above string
}

// Paths of the settings that let a host forward packets.
const (
	Forwarding4 = "ipv4/ip_forward"
	Forwarding6 = "ipv6/conf/all/forwarding"
)

// SettingsFor returns the settings that an overlay with addresses of these families needs. forward: pods leave the overlay
// through this host.
func SettingsFor(bridge string, v4, v6, forward bool) (list []Setting) {
	conf4, conf6 := "ipv4/conf/"+bridge+"/", "ipv6/conf/"+bridge+"/"
	if v6 {
		list = append(list, Setting{Path: conf6 + "disable_ipv6", Want: "0"})
	}
	if v4 && forward {
		list = append(list,
			Setting{Path: Forwarding4, Want: "1"}, Setting{Path: conf4 + "forwarding", Want: "1"},
			Setting{Path: conf4 + "arp_ignore", Want: "0", Wrong: "8"}, // 8: the gateway of the pods answers nothing
			// Strict: packets of pods are dropped where a route of another program leads elsewhere. Loose is as safe on a bridge.
			Setting{Path: conf4 + "rp_filter", Want: "2", Wrong: "1", Above: "ipv4/conf/all/rp_filter"})
	}
	if v6 && forward {
		list = append(list, Setting{Path: Forwarding6, Want: "1"}, Setting{Path: conf6 + "forwarding", Want: "1"})
	}
	return list
}

// GuardSettings returns the settings that keep pods from configuring the host: the bridge accepts no router advertisements and no
// redirects, and the host has no IPv6 on the ports with the given names. They also let the bridge announce a new MAC.
func GuardSettings(bridge string, ports ...string) []Setting {
	conf4, conf6 := "ipv4/conf/"+bridge+"/", "ipv6/conf/"+bridge+"/"
	list := []Setting{
		{Path: conf6 + "accept_ra", Want: "0"}, {Path: conf6 + "autoconf", Want: "0"},
		{Path: conf6 + "accept_redirects", Want: "0"}, {Path: conf4 + "accept_redirects", Want: "0"},
		// The bridge announces its MAC when that changes, also back: pods and other nodes would keep a wrong one.
		{Path: conf4 + "arp_notify", Want: "1"}, {Path: conf6 + "ndisc_notify", Want: "1"},
	}
	for _, port := range ports {
		list = append(list, Setting{Path: "ipv6/conf/" + port + "/disable_ipv6", Want: "1"})
	}
	return list
}

// right reports whether the setting has a right value among those observed. A setting that the kernel does not have is right.
func (s Setting) right(values map[string]string) bool {
	value, present := values[s.Path]
	if !present {
		return true
	}
	if above, known := values[s.Above]; known && number(above) > number(value) {
		value = above
	}
	if s.Wrong != "" {
		return value != s.Wrong
	}
	return value == s.Want
}

// number returns the value of a setting; 0 if it is none.
func number(value string) int {
	n, err := strconv.Atoi(value)
	if err != nil {
		return 0
	}
	return n
}

// Paths returns the paths of all settings that have to be observed.
func (d Desired) Paths() []string {
	var paths []string
	for _, s := range d.Settings {
		paths = append(paths, s.Path)
		if s.Above != "" {
			paths = append(paths, s.Above)
		}
	}
	return paths
}
