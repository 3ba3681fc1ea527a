package policy

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// verdict is the decision of a rule about the connections that it matches.
type verdict uint8

const (
	allow verdict = iota + 1
	deny
	pass // the next tier decides
)

// rule is the common form of the rules of all kinds of policies. Its verdict applies to connections with one of the peers (none:
// with any address) to one of the ports (none: to all ports of all protocols).
type rule struct {
	peers   []term
	ports   []portMatch
	verdict verdict
	never   bool // matches nothing: the policy's rule is invalid, or selects no address
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

// named reports whether the rule has a port by name.
func (r rule) named() bool {
	return slices.ContainsFunc(r.ports, func(p portMatch) bool { return p.name != "" })
}

// covers reports whether the rule matches connections of class c, for some peer.
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

// forPod returns the rules for connections to a pod, with port names replaced by the pod's port numbers.
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

// forPeers returns the rules for connections from a pod. A port name is replaced by the numbers that the peers use for it, with
// one rule for each number. Such a rule matches pods only.
func (s *State) forPeers(rules []rule) []rule {
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
			out = append(out, s.byNumber(r, port)...)
		}
		if len(plain) > 0 {
			r.ports = plain
			out = append(out, r)
		}
	}
	return out
}

// namedPeers returns the terms for the pods that a rule with a port name may match.
func namedPeers(r rule) (out []*podTerm) {
	if len(r.peers) == 0 {
		all := newSpaces(everything, everything)
		return []*podTerm{&all}
	}
	for _, t := range r.peers {
		if t.pods != nil {
			out = append(out, t.pods)
		}
	}
	return out
}

// byNumber returns a rule for each number that r's peers use for a port name.
func (s *State) byNumber(r rule, port portMatch) (out []rule) {
	for _, t := range namedPeers(r) {
		for _, n := range s.use(t, port.name, string(port.protocol)).numbers() {
			only := *t
			only.port = Port{Name: port.name, Protocol: port.protocol, Number: n}
			out = append(out, rule{
				peers: []term{newPodTerm(only)}, verdict: r.verdict,
				ports: []portMatch{{protocol: port.protocol, first: n, last: n}},
			})
		}
	}
	return out
}

// numbers returns the numbers of the pod's ports of that name and protocol.
func (p *Pod) numbers(name string, protocol corev1.Protocol) (out []uint16) {
	for _, port := range p.Ports {
		if port.Name == name && port.Protocol == protocol {
			out = append(out, port.Number)
		}
	}
	return out
}
