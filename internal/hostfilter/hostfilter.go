// Package hostfilter reads the packet filters of this host and judges whether they drop the traffic of pods and of nodes.
//
// It reads nftables, with the rules of iptables-nft in it, and the tables of iptables-legacy, which nftables does not show. The
// evaluation is a pure function over the rules: Judge follows a packet through all base chains that it passes. It knows
// interfaces, addresses, protocols, ports and the state of connections. A condition that it does not know may match or not, and a
// result that depends on it is Unclear.
package hostfilter

import (
	"fmt"
	"slices"
	"strings"
)

// Ruleset is all chains of a host that a packet may pass.
type Ruleset struct {
	Chains []*Chain
}

// Backend is the mechanism of the kernel that holds a chain. The zero Backend is invalid.
type Backend uint8

// Backends.
const (
	NFT    Backend = iota + 1 // nftables, also the rules of iptables-nft
	Legacy                    // iptables-legacy and ip6tables-legacy
)

// Families of chains, as nftables calls them. Legacy chains are of IPv4 or IPv6.
const (
	IPv4   = "ip"
	IPv6   = "ip6"
	Inet   = "inet"
	Bridge = "bridge"
)

// Chain is a list of rules. A base chain has a hook; the rules of other chains apply to packets that a rule sends there.
type Chain struct {
	Backend Backend
	Family  string
	Table   string
	Name    string
	Hook    string // in lower case: prerouting, input, forward, output, postrouting; empty: no base chain
	Drops   bool   // policy of a base chain
	Rules   []Rule
}

// Rule is a list of conditions with an action for packets that meet all of them.
type Rule struct {
	Conditions []Condition
	Action     Action
	Target     string // name of the chain of Jump and Goto
	Text       string // as the tool of the backend prints it
}

// Action is what a rule does with a packet. The zero Action is invalid.
type Action uint8

// Actions.
const (
	Continue Action = iota + 1 // nothing that matters, such as counting
	Accept
	Drop // also reject
	Jump
	Goto
	Return
	Translate // changes the destination, and ends the chain like Accept
)

// String returns how an operator finds the chain, such as "chain FORWARD of table ip filter".
func (c *Chain) String() string {
	if c.Backend == Legacy {
		return fmt.Sprintf("chain %s of table %s of %s", c.Name, c.Table, c.Tool())
	}
	return fmt.Sprintf("chain %s of table %s %s", c.Name, c.Family, c.Table)
}

// Tool returns the command that manages the chain's rules: iptables-legacy, iptables-nft, their IPv6 forms, or nft.
func (c *Chain) Tool() string {
	name := "iptables"
	if c.Family == IPv6 {
		name = "ip6tables"
	}
	switch {
	case c.Backend == Legacy:
		return name + "-legacy"
	case c.isIPTables():
		return name + "-nft"
	}
	return "nft"
}

// isIPTables reports whether the chain is in a table with the name and the base chains of iptables.
func (c *Chain) isIPTables() bool {
	tables := []string{"filter", "nat", "mangle", "raw", "security"}
	return (c.Family == IPv4 || c.Family == IPv6) && slices.Contains(tables, c.Table) && (c.Hook == "" || c.Name == strings.ToUpper(c.Hook))
}

// chain returns the chain that a rule of from sends packets to; nil if there is none.
func (r *Ruleset) chain(from *Chain, name string) *Chain {
	for _, c := range r.Chains {
		if c.Name == name && c.Backend == from.Backend && c.Family == from.Family && c.Table == from.Table {
			return c
		}
	}
	return nil
}

// Without returns r without the tables of nftables with the given prefix: those of weft itself.
func (r Ruleset) Without(prefix string) Ruleset {
	var rest Ruleset
	for _, c := range r.Chains {
		if c.Backend != NFT || !strings.HasPrefix(c.Table, prefix) {
			rest.Chains = append(rest.Chains, c)
		}
	}
	return rest
}
