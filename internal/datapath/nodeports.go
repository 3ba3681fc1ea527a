package datapath

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"

	"weft/internal/health"
	"weft/internal/nodefilter"
	"weft/internal/podlink"
	"weft/internal/settings"
	"weft/router/carrier/vxlan"
	"weft/tap/bridge"
)

// nodePorts keeps the rules in force that close the ports of this node and of the others to pods. Methods may be called concurrently.
type nodePorts struct {
	d *Datapath // constant

	mu      sync.Mutex
	fw      nodefilter.Firewall // guarded by mu; nil: not made yet, or the host lacks what it needs
	applied *nodefilter.Ruleset // guarded by mu; nil: none, or unknown
	met     bool                // guarded by mu: this run has known other nodes
	err     error               // guarded by mu; why the rules are not in force
	cleared bool                // guarded by mu: the node has left

	refused refused
}

// Name implements hostRules.
func (*nodePorts) Name() string { return "the rules that close ports of nodes to pods" }

// Intact implements hostRules.
func (p *nodePorts) Intact(context.Context) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fw == nil || p.applied == nil {
		return false, nil
	}
	intact, err := p.fw.Intact()
	if err == nil && !intact {
		p.applied = nil
	}
	return intact, err
}

// Postponed implements hostRules.
func (*nodePorts) Postponed() {}

// Apply implements hostRules: it puts the rules for the present nodes in force. It does nothing if they are, and does not look for
// changes by other programs: Intact does.
func (p *nodePorts) Apply(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cleared {
		return nil
	}
	rules := p.ruleset() // with the lock, so that an older state never replaces a newer one
	if p.applied != nil && p.err == nil && reflect.DeepEqual(*p.applied, rules) {
		return nil
	}
	err := p.apply(ctx, rules)
	if err != nil && p.err == nil {
		p.d.log.Warn("pods may reach the ports of nodes", "err", err)
	}
	p.err = err
	return err
}

// apply sets the rules. The caller holds mu.
func (p *nodePorts) apply(ctx context.Context, rules nodefilter.Ruleset) error {
	p.applied = nil
	if p.fw == nil {
		fw, err := nodefilter.New(ctx)
		if err != nil {
			return err
		}
		p.fw = fw
	}
	if err := p.fw.Apply(ctx, rules); err != nil {
		return err
	}
	p.applied = &rules
	return nil
}

// ruleset returns the rules for the nodes as they are known now. The caller holds mu.
func (p *nodePorts) ruleset() nodefilter.Ruleset {
	s := p.d.settings
	r := nodeRules(s, p.d.cfg.Membership.Addrs())
	p.met = p.met || len(r.Nodes) > 0
	r.KeepNodes = !p.met
	return r
}

// nodeRules returns the rules of a node for other nodes at addrs. All nodes have the same --port. The ports that members announce are not
// used: a hostile one could announce an address and a port that pods need, such as those of the API server.
func nodeRules(s *settings.Config, addrs []netip.Addr) nodefilter.Ruleset {
	gossip := uint16(s.Port)
	ports := []nodefilter.Port{
		{Protocol: nodefilter.TCP, Number: gossip}, {Protocol: nodefilter.UDP, Number: gossip},
		{Protocol: nodefilter.UDP, Number: s.DataPort()}, {Protocol: nodefilter.UDP, Number: s.KernelPort()},
		{Protocol: nodefilter.UDP, Number: s.TunnelPort()},
	}
	links := []string{s.Tap, s.KernelDevice(), vxlan.PairNames(s.KernelDevice()), s.TunneledDevice(), podlink.HostPrefix + "*"}
	r := nodefilter.Ruleset{Bridge: s.Bridge, Links: links, Own: ports}
	for _, addr := range addrs {
		r.Nodes = append(r.Nodes, addr.Unmap().WithZone(""))
	}
	slices.SortFunc(r.Nodes, netip.Addr.Compare)
	r.Nodes = slices.Compact(r.Nodes)
	return r
}

// undo removes the rules of a start that failed, unless there is a bridge from an earlier one.
func (p *nodePorts) undo(ctx context.Context) error {
	info, err := bridge.Inspect(p.d.settings.Bridge)
	if err != nil || info.State == bridge.Found {
		return err
	}
	return p.remove(ctx)
}

// remove removes the rules for good.
func (p *nodePorts) remove(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cleared = true
	if p.fw == nil {
		return nil
	}
	return p.fw.Remove(ctx)
}

// findings reports that the rules are not in force.
func (p *nodePorts) findings() []health.Finding {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		return nil
	}
	return []health.Finding{{
		Code: health.NodePortsOpen, Text: fmt.Sprintf("Pods may reach the ports of this node and of the others: %v.", p.err),
		Remedy: nodefilter.Hint,
	}}
}
