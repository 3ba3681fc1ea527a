package kube

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"weft/internal/ether"
	"weft/internal/kube/cluster"
	"weft/internal/kube/policy"
)

// claims gives each address to one pod, and gives a policy.State the pods with the addresses that are theirs. An address may belong to a
// new pod while the API server still shows it at the previous one. One goroutine calls its methods, except name.
type claims struct {
	node  string
	state *policy.State
	// portOf returns the name of the port of a pod with an address, for pods that the plugin announced without one; empty: unknown.
	portOf func(netip.Addr) string

	pods  map[podKey]*claim
	local map[podKey]*cluster.Pod // pods of this node, also those without addresses
	// portless are pods of this node with addresses and without a known port.
	portless map[podKey]bool

	mu      sync.Mutex
	holders map[netip.Addr]*claim   // guarded by mu; the claim that counts
	others  map[netip.Addr][]*claim // guarded by mu; further claims to an address
}

// claim is what a pod claims: its addresses, which are those that the plugin announced, if it did. It does not change.
type claim struct {
	pod      policy.Pod
	attached bool // by the plugin on this node
	deleting bool
	created  int64
}

func newClaims(node string, state *policy.State, portOf func(netip.Addr) string) *claims {
	return &claims{
		node: node, state: state, portOf: portOf, pods: map[podKey]*claim{}, local: map[podKey]*cluster.Pod{},
		portless: map[podKey]bool{},
		holders:  map[netip.Addr]*claim{}, others: map[netip.Addr][]*claim{},
	}
}

// update replaces a pod. pod is nil if it is gone, a if the plugin has not announced it.
func (c *claims) update(key podKey, pod *cluster.Pod, a *attachment) {
	if pod != nil && pod.Node == c.node {
		c.local[key] = pod
	} else {
		delete(c.local, key)
	}
	before, now := c.pods[key], c.claimOf(pod, a)
	delete(c.portless, key)
	if now != nil && now.pod.Local && now.pod.Link == "" {
		c.portless[key] = true
	}
	if before == nil && now == nil {
		return
	}
	affected := c.replace(before, now)
	if now == nil {
		delete(c.pods, key)
		c.state.DeletePod(key.Namespace, key.Name)
	} else {
		c.pods[key] = now
		c.settle(now)
	}
	for other := range affected {
		if other != before && other != now {
			c.settle(other)
		}
	}
}

// last returns the last version of a pod of this node that was seen; nil if there is none.
func (c *claims) last(key podKey) *cluster.Pod { return c.local[key] }

// claimOf returns the claim of a pod; nil if it has no addresses of its own.
func (c *claims) claimOf(p *cluster.Pod, a *attachment) *claim {
	if p == nil || p.HostNetwork || p.Finished {
		return nil
	}
	out := &claim{deleting: p.Deleting, created: p.Created}
	out.pod = policy.Pod{Namespace: p.Namespace, Name: p.Name, Labels: p.Labels, Ports: p.Ports, IPs: p.IPs, Local: p.Node == c.node}
	if a != nil && out.pod.Local && p.Is(a.UID) {
		out.attached, out.pod.IPs, out.pod.Link, out.pod.LinkLocal = true, a.IPs, a.Link, linkLocal(a.MAC)
	}
	if len(out.pod.IPs) == 0 {
		return nil
	}
	if out.pod.Local && out.pod.Link == "" {
		out.pod.Link = c.portOf(out.pod.IPs[0])
	}
	if !out.pod.LinkLocal.IsValid() {
		out.pod.LinkLocal = linkLocal(ether.FromIP(out.pod.IPs[0]))
	}
	return out
}

// linkLocal returns the link-local address that follows from a MAC; invalid for the zero MAC.
func linkLocal(mac ether.Addr) netip.Addr {
	if mac.IsZero() {
		return netip.Addr{}
	}
	return mac.LinkLocal()
}

// replace replaces one claim by another, and returns the claims that won or lost an address thereby. Either may be nil.
func (c *claims) replace(before, now *claim) map[*claim]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	var affected map[*claim]bool
	change := func(ip netip.Addr, f func()) {
		old := c.holders[ip]
		f()
		if holder := c.holders[ip]; holder != old {
			for _, x := range []*claim{old, holder} {
				if x != nil && x != before && x != now {
					if affected == nil {
						affected = map[*claim]bool{}
					}
					affected[x] = true
				}
			}
		}
	}
	if before != nil {
		for _, ip := range before.pod.IPs {
			change(ip, func() { c.release(ip, before) })
		}
	}
	if now != nil {
		for _, ip := range now.pod.IPs {
			change(ip, func() { c.take(ip, now) })
		}
	}
	return affected
}

// take adds a claim to an address. The caller holds mu.
func (c *claims) take(ip netip.Addr, x *claim) {
	holder := c.holders[ip]
	switch {
	case holder == nil || holder == x:
		c.holders[ip] = x
	case x.before(holder):
		c.holders[ip] = x
		c.others[ip] = append(c.others[ip], holder)
	default:
		c.others[ip] = append(c.others[ip], x)
	}
}

// release removes a claim to an address. The caller holds mu.
func (c *claims) release(ip netip.Addr, x *claim) {
	others := slices.DeleteFunc(c.others[ip], func(y *claim) bool { return y == x })
	if c.holders[ip] == x {
		delete(c.holders, ip)
		if len(others) > 0 {
			best := slices.MinFunc(others, (*claim).compare)
			c.holders[ip] = best
			others = slices.DeleteFunc(others, func(y *claim) bool { return y == best })
		}
	}
	if len(others) == 0 {
		delete(c.others, ip)
	} else {
		c.others[ip] = others
	}
}

// compare orders claims to one address. A pod that the plugin has attached comes first, then one that is not being deleted, then the
// younger one.
func (x *claim) compare(y *claim) int {
	return cmp.Or(
		-compareBool(x.attached, y.attached), compareBool(x.deleting, y.deleting), cmp.Compare(y.created, x.created),
		strings.Compare(x.pod.Namespace, y.pod.Namespace), strings.Compare(x.pod.Name, y.pod.Name),
	)
}

func (x *claim) before(y *claim) bool { return x.compare(y) < 0 }

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// settle gives the state a pod with the addresses that are its own.
func (c *claims) settle(x *claim) {
	lost := func(ip netip.Addr) bool { return c.holders[ip] != x }
	c.mu.Lock()
	p := &x.pod
	if slices.ContainsFunc(x.pod.IPs, lost) {
		part := x.pod
		part.IPs = slices.DeleteFunc(slices.Clone(x.pod.IPs), lost)
		p = &part
	}
	c.mu.Unlock()
	if len(p.IPs) == 0 {
		c.state.DeletePod(p.Namespace, p.Name)
		return
	}
	c.state.SetPod(p)
}

// unattached returns the addresses of the pods of this node that the plugin has not announced.
func (c *claims) unattached() map[podKey][]netip.Addr {
	out := map[podKey][]netip.Addr{}
	for key := range c.local {
		if x := c.pods[key]; x != nil && !x.attached {
			out[key] = x.pod.IPs
		}
	}
	return out
}

// name returns namespace and name of the pod that has an address, empty if none has it.
func (c *claims) name(ip netip.Addr) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x := c.holders[ip]; x != nil {
		return x.pod.Namespace + "/" + x.pod.Name
	}
	return ""
}
