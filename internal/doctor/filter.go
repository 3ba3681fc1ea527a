package doctor

import (
	"context"
	"fmt"
	"os"
	"strings"

	"weft/internal/hostfilter"
	"weft/internal/hostnet"
	"weft/internal/settings"
)

// The checks of this file concern the packet filters of the host.

// filterHost describes a node for the judgment of the host's filters.
func filterHost(ctx context.Context, c *settings.Config) hostfilter.Host {
	h := hostfilter.Host{Bridge: c.Bridge, Ranges: c.Ranges, Outside: !c.NoMasquerade}
	found := *c
	found.HasWireGuard = hasWireGuard(c)
	h.TCP, h.UDP = found.OpenPorts(c.Sealed())
	h.Filtered4, h.Filtered6 = hostfilter.Filtered(c.Bridge)
	h.Exposed = hostnet.Exposed(c.Bridge, c.Ranges)
	if self, err := c.AdvertiseAddr(ctx); err == nil {
		h.Self, h.Uplink = self, hostnet.LinkOf(self)
	}
	return h
}

// lossFinding is the finding about the losses of some kinds of traffic.
func lossFinding(losses []hostfilter.Loss, kinds ...hostfilter.Traffic) (f finding, lost bool) {
	for _, verdict := range []hostfilter.Verdict{hostfilter.Drops, hostfilter.Unclear} {
		for _, kind := range kinds {
			for _, l := range losses {
				switch {
				case l.Traffic != kind || l.Result.Verdict != verdict:
				case verdict == hostfilter.Drops:
					return warn(l.Remedy, "%s", l), true
				default:
					const unless = "unless an earlier rule accepts it by a condition that is not evaluated"
					return finding{unknown: true, detail: fmt.Sprintf("%s, %s", l, unless)}, true
				}
			}
		}
	}
	return finding{}, false
}

// checkBridgeNF checks whether frames between pods pass the host's filters where something needs that, and whether they are dropped
// there.
func checkBridgeNF(ctx context.Context, c *settings.Config) finding {
	h := filterHost(ctx, c)
	rules, err := hostfilter.Read(ctx)
	if (!h.Filtered4 && c.HasIPv4() || !h.Filtered6 && c.HasIPv6()) && inKubernetes(rules) {
		return warn("Run \"modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1\".",
			"frames between pods do not pass the host's filters: network policies and Services do not work between pods of this host")
	}
	if f, lost := lossFinding(hostfilter.Assess(rules, h), hostfilter.PodsToPods); lost {
		return f
	}
	switch {
	case err != nil:
		return finding{unknown: true, detail: fmt.Sprintf("the filters that frames between pods pass cannot be read: %v", err)}
	case !h.Filtered4 && !h.Filtered6:
		return ok("frames between pods do not pass the host's IP filters")
	}
	return ok("frames between pods pass the host's filters, which do not drop them")
}

// checkFirewall checks whether the host's filters drop packets of other nodes, or of pods to addresses outside the overlay.
func checkFirewall(ctx context.Context, c *settings.Config) finding {
	rules, err := hostfilter.Read(ctx)
	losses := hostfilter.Assess(rules, filterHost(ctx, c))
	if f, lost := lossFinding(losses, hostfilter.NodesToNode, hostfilter.HostToPods, hostfilter.PodsToOutside); lost {
		return f
	}
	if err != nil {
		return finding{unknown: true, detail: fmt.Sprintf("the host's filters cannot be read: %v", err)}
	}
	return ok("no rule drops packets of other nodes or of pods")
}

// inKubernetes reports whether this host is a node of a Kubernetes cluster: this process runs in a pod of it, or the host has rules
// of kube-proxy or of network policies.
func inKubernetes(rules hostfilter.Ruleset) bool {
	if os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		return true
	}
	for _, chain := range rules.Chains {
		if strings.HasPrefix(chain.Name, "KUBE-") || chain.Table == "kube-proxy" || chain.Table == "weft-policy" {
			return true
		}
	}
	return false
}
