package hostfilter

import (
	"fmt"
	"strings"
)

// AcceptPods returns, as a sentence, how to accept forwarded packets of the pods on a bridge, with the tool that manages the rules
// which drop them.
func (r Result) AcceptPods(rules Ruleset, bridge string) string {
	c := r.Chain
	if c == nil {
		return ""
	}
	switch tool := c.Tool(); {
	case c.Table == "firewalld":
		return fmt.Sprintf("Run \"firewall-cmd --permanent --zone=trusted --add-interface=%s && firewall-cmd --reload\".", bridge)
	case rules.has(c, "ufw-user-forward"):
		return fmt.Sprintf("Run \"ufw route allow in on %s && ufw route allow out on %s\".", bridge, bridge)
	case c.Family == Bridge:
		return fmt.Sprintf("Accept frames of %s in it: pods send and receive through its ports.", bridge)
	case tool == "nft":
		base := rules.base(c)
		rule := fmt.Sprintf("nft insert rule %s %s %s", c.Family, c.Table, base.Name)
		return accept(base.Hook, fmt.Sprintf("%s iifname %s accept", rule, bridge), fmt.Sprintf("%s oifname %s accept", rule, bridge))
	default:
		chain, hook := "FORWARD", "forward"
		if rules.has(c, "DOCKER-USER") {
			chain = "DOCKER-USER" // which survives a restart of Docker
		} else if base := rules.base(c); base.Hook != "" {
			chain, hook = base.Name, base.Hook
		}
		table := ""
		if c.Table != "filter" {
			table = " -t " + c.Table
		}
		rule := fmt.Sprintf("%s%s -I %s", tool, table, chain)
		return accept(hook, fmt.Sprintf("%s -i %s -j ACCEPT", rule, bridge), fmt.Sprintf("%s -o %s -j ACCEPT", rule, bridge))
	}
}

// accept returns how to accept packets in a chain with a hook: with a command for those that arrive by the bridge, and one for those that
// leave by it. Packets have an incoming interface before the routing decision and at the input, and an outgoing one after it.
func accept(hook, in, out string) string {
	commands := in + "; " + out
	switch hook {
	case "prerouting", "input":
		commands = in
	case "output", "postrouting":
		commands = out
	}
	return fmt.Sprintf("Run \"%s\", and add the rules to the file of the firewall.", commands)
}

// AcceptPort returns, as a sentence, how to accept packets of other nodes to a port of this host, such as 6784.
func (r Result) AcceptPort(rules Ruleset, protocol string, port uint16) string {
	c := r.Chain
	if c == nil {
		return ""
	}
	switch tool := c.Tool(); {
	case c.Table == "firewalld":
		return fmt.Sprintf("Run \"firewall-cmd --permanent --add-port=%d/%s && firewall-cmd --reload\".", port, protocol)
	case rules.has(c, "ufw-user-input"):
		return fmt.Sprintf("Run \"ufw allow proto %s from NODES to any port %d\".", protocol, port)
	case tool == "nft":
		return fmt.Sprintf("Run \"nft insert rule %s %s %s %s dport %d accept\" for the addresses of the nodes.",
			c.Family, c.Table, rules.base(c).Name, protocol, port)
	default:
		return fmt.Sprintf("Run \"%s -I INPUT -p %s -s NODES --dport %d -j ACCEPT\".", tool, protocol, port)
	}
}

// has reports whether the table of a chain has a chain of that name, in the form of IPv4 or IPv6.
func (r *Ruleset) has(c *Chain, name string) bool {
	six := strings.Replace(name, "ufw-", "ufw6-", 1)
	return r.chain(c, name) != nil || r.chain(c, six) != nil
}

// base returns a base chain through which packets reach c: c itself, or one that leads to it by jumps; c if there is none.
func (r *Ruleset) base(c *Chain) *Chain {
	seen := map[*Chain]bool{}
	for at := c; at != nil && !seen[at]; at = r.caller(at) {
		if at.Hook != "" {
			return at
		}
		seen[at] = true
	}
	return c
}

// caller returns a chain that jumps to c, or nil.
func (r *Ruleset) caller(c *Chain) *Chain {
	for _, from := range r.Chains {
		if from.Backend != c.Backend || from.Family != c.Family || from.Table != c.Table {
			continue
		}
		for _, rule := range from.Rules {
			if (rule.Action == Jump || rule.Action == Goto) && rule.Target == c.Name {
				return from
			}
		}
	}
	return nil
}
