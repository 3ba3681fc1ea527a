package datapath

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"

	"weft/internal/health"
	"weft/internal/nodefilter"
	"weft/internal/podlink"
	"weft/tap/bridge"
)

// Endpoint is where a node listens for the others.
type Endpoint struct {
	Addr   netip.Addr
	Gossip uint16 // TCP and UDP
	Data   uint16 // UDP
}

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
	r := nodefilter.Ruleset{
		Bridge: s.Bridge, Links: []string{s.Tap, s.KernelDevice(), podlink.HostPrefix + "*"},
		Own: portsOf(uint16(s.Port), s.DataPort(), s.KernelPort()),
	}
	for _, e := range p.d.cfg.Membership.Endpoints() {
		r.Nodes = append(r.Nodes, nodefilter.Node{Addr: e.Addr.Unmap().WithZone(""), Ports: portsOf(e.Gossip, e.Data, s.KernelPort())})
	}
	slices.SortFunc(r.Nodes, func(a, b nodefilter.Node) int {
		return cmp.Or(a.Addr.Compare(b.Addr), slices.CompareFunc(a.Ports, b.Ports, func(a, b nodefilter.Port) int {
			return cmp.Compare(a.Number, b.Number)
		}))
	})
	p.met = p.met || len(r.Nodes) > 0
	r.KeepNodes = !p.met
	return r
}

// portsOf returns the ports of a node.
func portsOf(gossip, data, kernel uint16) []nodefilter.Port {
	return []nodefilter.Port{
		{Protocol: nodefilter.TCP, Number: gossip}, {Protocol: nodefilter.UDP, Number: gossip},
		{Protocol: nodefilter.UDP, Number: data}, {Protocol: nodefilter.UDP, Number: kernel},
	}
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
