package doctor

import (
	"context"
	"strings"

	"weft/internal/hoststate"
	"weft/internal/hoststate/live"
	"weft/internal/podlink"
	"weft/internal/settings"
	"weft/tap/bridge"
)

// checkHost compares the host with what a running node needs of it. The node restores what differs within a second, so a difference
// stays only where it cannot, or where another program undoes each repair.
func checkHost(ctx context.Context, c *settings.Config) finding {
	if !answers(ctx, c.Socket) {
		return ok("no node runs at %s", c.Socket)
	}
	actions, err := differences(c)
	if err != nil {
		return finding{unknown: true, detail: err.Error()}
	}
	if len(actions) == 0 {
		return ok("links, ports and settings are as the node needs them")
	}
	var wrong []string
	for _, a := range actions {
		wrong = append(wrong, a.String())
	}
	return warn("Find the program that changes it, and see the conditions of \"weft status\".", "%s", strings.Join(wrong, "; "))
}

// differences returns what differs on this host from what a node needs. It does not know leases and MTUs, which only the node does.
func differences(c *settings.Config) ([]hoststate.Action, error) {
	host, err := live.Open()
	if err != nil {
		return nil, err
	}
	defer host.Close()
	info, err := bridge.Inspect(c.Bridge)
	if err != nil {
		return nil, err
	}
	want := hoststate.Desired{
		Bridge:   hoststate.Bridge{Name: c.Bridge, Made: info.Ours},
		Tunnels:  []hoststate.Tunnel{{Name: c.Tap}, {Name: c.KernelDevice()}},
		Settings: hoststate.SettingsFor(c.Bridge, c.HasIPv4(), c.HasIPv6(), !c.NoMasquerade),
		Pods:     map[string]hoststate.Pod{},
	}
	have, err := host.Observe(want)
	if err != nil {
		return nil, err
	}
	for name, l := range have.Links {
		if strings.HasPrefix(name, podlink.HostPrefix) && l.Master == c.Bridge {
			want.Pods[name] = hoststate.Pod{Hairpin: l.Port[hoststate.Hairpin]}
		}
	}
	return hoststate.Diff(want, have), nil
}
