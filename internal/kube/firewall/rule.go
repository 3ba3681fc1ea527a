package firewall

import (
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"

	"weft/internal/kube/policy"
)

// rule is a rule of a chain that comes and goes with policies and pods: conditions, and what happens to a packet that meets all of them.
// It is the one description of such a rule. text returns its form for the nft program, and sender.exprs the same for the kernel.
// Rules of other chains are text only.
type rule struct {
	family family // of the addresses in sets, and of the chains in ports

	// Either ports, or any of the others, which apply in this order. What is not set is no condition, or changes nothing.
	ports   []policy.PortJump // verdicts by protocol and the server's port
	types   types
	sets    []lookup // in the bridge table, types has the family
	mark    marking
	verdict verdict
}

// types is the condition that a frame has one of some types, or that it has none of them.
type types struct {
	any []string // ip, ip6, arp
	not bool
}

// lookup is the condition that an address of the packet is in a set, or that it is not: alone, or with the port of the bridge.
type lookup struct {
	port string // iifname, oifname; empty: the address alone
	end  string // saddr, daddr
	set  string
	not  bool
}

// marking clears some bits of the packet mark and then sets some.
type marking struct{ clear, set int }

// verdict is what happens to a packet, and the chain that it goes on in, if any.
type verdict struct{ action, chain string }

var (
	accept = verdict{action: "accept"}
	back   = verdict{action: "return"}
)

func jump(chain string) verdict { return verdict{"jump", chain} }
func goTo(chain string) verdict { return verdict{"goto", chain} }

// text returns the rule in the syntax of nft.
func (r rule) text() string {
	if len(r.ports) > 0 {
		return r.portsText()
	}
	var parts []string
	if len(r.types.any) > 0 {
		parts = append(parts, r.types.text())
	}
	for _, l := range r.sets {
		parts = append(parts, l.text(r.family))
	}
	if r.mark != (marking{}) {
		parts = append(parts, setMark(r.mark.clear, r.mark.set))
	}
	if r.verdict != (verdict{}) {
		parts = append(parts, r.verdict.text())
	}
	return strings.Join(parts, " ")
}

func (r rule) portsText() string {
	port, jumps := "dport", make([]string, len(r.ports))
	if r.family.backward {
		port = "sport"
	}
	for i, p := range r.ports {
		jumps[i] = fmt.Sprintf("%s . %s : goto %s", strings.ToLower(string(p.Protocol)), portsOf(p.First, p.Last), r.family.name(p.Chain))
	}
	return "meta l4proto . th " + port + " vmap { " + strings.Join(jumps, ", ") + " }"
}

func portsOf(first, last uint16) string {
	if first == last {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, last)
}

// ranged reports whether a rule has a range of ports.
func (r rule) ranged() bool {
	return slices.ContainsFunc(r.ports, func(p policy.PortJump) bool { return p.First != p.Last })
}

func (t types) text() string {
	list, operator := strings.Join(t.any, ", "), ""
	if len(t.any) > 1 {
		list = "{ " + list + " }"
	}
	if t.not {
		operator = "!= "
	}
	return "ether type " + operator + list
}

func (l lookup) text(f family) string {
	words := []string{f.word, l.end}
	if l.port != "" {
		words = []string{l.port, ".", f.word, l.end}
	}
	if l.not {
		words = append(words, "!=")
	}
	return knftables.Concat(words, "@", l.set)
}

func (v verdict) text() string {
	if v.chain == "" {
		return v.action
	}
	return v.action + " " + v.chain
}
