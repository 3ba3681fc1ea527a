package policy

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// verdict is what a rule says about a connection that it matches.
type verdict uint8

const (
	allow verdict = iota + 1
	deny
	pass // leave it to the next tier
)

// rule is what all kinds of policies are made of: a connection with one of the peers (none: with anybody) to one of the
// ports (none: to any, of every protocol) gets the verdict.
type rule struct {
	peers   []term
	ports   []portMatch
	verdict verdict
	never   bool // nothing matches: what the policy says makes no sense, or stands for nobody
}

// portMatch is a range of ports of a protocol, or one port by name.
type portMatch struct {
	protocol    corev1.Protocol
	first, last uint16
	name        string
}

// key returns a text that is equal for equal rules.
func (r rule) key() string {
	peers, _ := definition(r.peers)
	ports := make([]string, len(r.ports))
	for i, p := range r.ports {
		ports[i] = fmt.Sprint(p)
	}
	slices.Sort(ports)
	return fmt.Sprintf("%d %v [%s] [%s]", r.verdict, r.never, peers, strings.Join(ports, ","))
}

// named reports whether any port is given by name.
func (r rule) named() bool {
	return slices.ContainsFunc(r.ports, func(p portMatch) bool { return p.name != "" })
}

// covers reports whether the rule says something about connections of class c.
func (r rule) covers(c class) bool {
	if r.never {
		return false
	}
	if len(r.ports) == 0 {
		return true
	}
	return slices.ContainsFunc(r.ports, func(p portMatch) bool {
		return p.protocol == c.protocol && p.first <= c.first && c.last <= p.last
	})
}

// forPod returns the rules as they are for connections to a pod: ports by name have the numbers that they have there.
func forPod(rules []rule, p *Pod) []rule {
	out := make([]rule, 0, len(rules))
	for _, r := range rules {
		if !r.named() {
			out = append(out, r)
			continue
		}
		var ports []portMatch
		for _, port := range r.ports {
			if port.name == "" {
				ports = append(ports, port)
				continue
			}
			for _, n := range p.numbers(port.name, port.protocol) {
				ports = append(ports, portMatch{protocol: port.protocol, first: n, last: n})
			}
		}
		r.ports, r.never = ports, r.never || len(ports) == 0
		out = append(out, r)
	}
	return out
}

// forPeers returns the rules as they are for connections from a pod: a port by name has the number that it has at the other
// end, so that there is a rule for each number, and only pods can be meant.
func (x *index) forPeers(rules []rule) []rule {
	out := make([]rule, 0, len(rules))
	for _, r := range rules {
		if !r.named() || r.never {
			out = append(out, r)
			continue
		}
		var plain []portMatch
		for _, port := range r.ports {
			if port.name == "" {
				plain = append(plain, port)
				continue
			}
			out = append(out, x.byNumber(r, port)...)
		}
		if len(plain) > 0 {
			r.ports = plain
			out = append(out, r)
		}
	}
	return out
}

// byNumber returns a rule for each number that a port by name has among r's peers.
func (x *index) byNumber(r rule, port portMatch) (out []rule) {
	peers := r.peers
	if len(peers) == 0 {
		peers = []term{newPodTerm(podTerm{spaces: everything, pods: everything})}
	}
	for _, t := range peers {
		if t.pods == nil {
			continue
		}
		for _, n := range x.numbers(*t.pods, port.name, port.protocol) {
			only := *t.pods
			only.port = Port{Name: port.name, Protocol: port.protocol, Number: n}
			out = append(out, rule{
				peers: []term{newPodTerm(only)}, verdict: r.verdict,
				ports: []portMatch{{protocol: port.protocol, first: n, last: n}},
			})
		}
	}
	return out
}
