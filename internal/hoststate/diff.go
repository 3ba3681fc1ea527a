package hoststate

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"
)

// Diff returns the actions that make the host as it should be, in the order in which they have to be applied. Where the bridge is
// missing there is only one: what is on the bridge is compared when it is there. Links that do not exist are left out, but for the
// bridge: pods and tunnels are made by other parts.
func Diff(d Desired, o Observed) []Action {
	bridge, found := o.Links[d.Bridge.Name]
	if !found || bridge.Kind != "bridge" {
		return []Action{{Kind: MakeBridge, Link: d.Bridge.Name, Have: kindOf(bridge)}}
	}
	var list []Action
	for _, t := range d.Tunnels {
		list = append(list, diffTunnel(d, t, o)...)
	}
	list = append(list, diffBridge(d.Bridge, bridge)...)
	if o.Deaf {
		list = append(list, Action{Kind: AddMAC, Link: d.Bridge.Name, MAC: bridge.MAC})
	}
	for _, name := range slices.Sorted(maps.Keys(d.Pods)) {
		list = append(list, diffPod(d, name, o)...)
	}
	list = append(list, DiffSettings(d, o.Settings)...) // before the addresses: IPv6 may be off
	return append(list, diffAddresses(d, o)...)
}

// DiffSettings returns the actions of Diff for settings of the kernel alone. values are by their paths.
func DiffSettings(d Desired, values map[string]string) (list []Action) {
	for _, s := range d.Settings {
		if !s.right(values) {
			list = append(list, Action{Kind: Set, Path: s.Path, Text: s.Want, Have: values[s.Path]})
		}
	}
	return list
}

// diffTunnel compares a tunnel port. Isolation comes first: without it there may be a loop.
func diffTunnel(d Desired, t Tunnel, o Observed) (list []Action) {
	l, found := o.Links[t.Name]
	if !found {
		return nil
	}
	if l.Master != d.Bridge.Name {
		list = append(list, Action{Kind: SetMaster, Link: t.Name, Master: d.Bridge.Name, Tunnel: true, Have: portOf(l.Master)})
	} else {
		list = append(list, diffFlags(o, l, flagValue{Isolated, true}, flagValue{Hairpin, false})...)
	}
	list = append(list, diffMTU(l, t.MTU)...)
	if !t.MAC.IsZero() && l.MAC != t.MAC {
		list = append(list, Action{Kind: SetMAC, Link: t.Name, MAC: t.MAC, Have: l.MAC.String()})
	}
	return append(list, diffUp(l)...)
}

func diffBridge(b Bridge, l Link) (list []Action) {
	if !b.MAC.IsZero() && l.MAC != b.MAC {
		list = append(list, Action{Kind: SetMAC, Link: b.Name, MAC: b.MAC, Have: l.MAC.String()})
	}
	list = append(list, diffAlias(l, b.Alias)...)
	list = append(list, diffMTU(l, b.MTU)...)
	if l.NoARP {
		list = append(list, Action{Kind: SetARP, Link: b.Name})
	}
	for _, want := range options {
		if have, known := l.Options[want.option]; b.Made && known && have != want.value {
			list = append(list, Action{
				Kind: SetOption, Link: b.Name, Option: want.option, Value: want.value, Have: strconv.FormatUint(uint64(have), 10),
			})
		}
	}
	return append(list, diffUp(l)...)
}

// diffPod compares a pod's port. One that is a port of another bridge is left there: MovedPods reports it.
func diffPod(d Desired, name string, o Observed) (list []Action) {
	l, found := o.Links[name]
	if !found {
		return nil
	}
	want := d.Pods[name]
	list = diffAlias(l, want.Alias)
	switch l.Master {
	case d.Bridge.Name:
		list = append(list, diffFlags(o, l, flagValue{Isolated, false}, flagValue{Hairpin, want.Hairpin})...)
	case "":
		list = append(list, Action{Kind: SetMaster, Link: name, Master: d.Bridge.Name})
	default:
		return list
	}
	if l.MTU < want.MTU && l.MTU != d.PodMTU {
		list = append(list, diffMTU(l, want.MTU)...)
	}
	return append(list, diffUp(l)...)
}

// MovedPods returns the pod ports that are ports of another bridge now, sorted by name.
func MovedPods(d Desired, o Observed) (moved []Link) {
	for name := range d.Pods {
		if l := o.Links[name]; l.Master != d.Bridge.Name && l.Master != "" {
			moved = append(moved, l)
		}
	}
	slices.SortFunc(moved, func(a, b Link) int { return cmp.Compare(a.Name, b.Name) })
	return moved
}

// diffFlags compares commonFlags and own of a port. With STP, the bridge alone decides which ports forward frames.
func diffFlags(o Observed, l Link, own ...flagValue) (list []Action) {
	stp := o.Links[l.Master].Options[STP] != 0
	for _, w := range append(own, commonFlags...) {
		have, known := l.Port[w.flag]
		if !known || have == w.on || w.flag == Forwarding && (!l.Up || !l.Running || stp) {
			continue
		}
		list = append(list, Action{Kind: SetFlag, Link: l.Name, Flag: w.flag, On: w.on})
	}
	return list
}

func diffAlias(l Link, want string) []Action {
	if want == "" || l.Alias == want {
		return nil
	}
	return []Action{{Kind: SetAlias, Link: l.Name, Text: want, Have: l.Alias}}
}

func diffMTU(l Link, want int) []Action {
	if want == 0 || l.MTU == want {
		return nil
	}
	return []Action{{Kind: SetMTU, Link: l.Name, MTU: want, Have: strconv.Itoa(l.MTU)}}
}

func diffUp(l Link) []Action {
	if l.Up {
		return nil
	}
	return []Action{{Kind: SetUp, Link: l.Name}}
}

// diffAddresses compares the bridge's addresses, and the routes to their subnets, which the kernel adds with them. An address may
// have any length: an operator may have chosen it.
func diffAddresses(d Desired, o Observed) (list []Action) {
	for _, want := range d.Addresses {
		i := slices.IndexFunc(o.Addresses, func(p netip.Prefix) bool { return p.Addr() == want.Addr() })
		if i < 0 {
			list = append(list, Action{Kind: AddAddress, Link: d.Bridge.Name, Prefix: want})
			continue
		}
		have, bridge := o.Addresses[i], o.Links[d.Bridge.Name]
		if one := netip.PrefixFrom(have.Addr(), have.Addr().BitLen()); bridge.Up && bridge.Running && !slices.Contains(o.Local, one) {
			list = append(list, Action{Kind: AddLocal, Link: d.Bridge.Name, Prefix: one})
		}
		if bridge.Up && !have.IsSingleIP() && !slices.Contains(o.Routes, have.Masked()) {
			list = append(list, Action{Kind: AddRoute, Link: d.Bridge.Name, Prefix: have})
		}
	}
	return list
}

// kindOf says what has the name of the bridge.
func kindOf(l Link) string {
	if l.Kind == "" {
		return ""
	}
	return "a " + l.Kind
}

// portOf says which bridge a link is a port of.
func portOf(master string) string {
	if master == "" {
		return ""
	}
	return "a port of " + master
}
