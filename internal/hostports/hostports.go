// Package hostports restores ports of the host that are published for containers, after another program has removed their rules.
//
// The portmap plugin of CNI makes the rules when a container is added, and never again. "iptables -t nat -F", or a firewall that is
// reloaded, removes them, and the ports are dead until the container is restarted. The package reads the published ports from the
// results that libcni caches, finds those without a rule, and publishes them in a table of its own:
//
//	table ip weft-hostports {
//	    chain prerouting { type nat hook prerouting priority dstnat + 5; fib daddr type local jump ports }
//	    chain output { type nat hook output priority dstnat + 5; fib daddr type local jump ports }
//	    chain ports { tcp dport 8080 dnat to 10.32.0.2:80 }
//	    chain postrouting {
//	        type nat hook postrouting priority srcnat - 5
//	        ip daddr 10.32.0.2 ip saddr { 10.32.0.2, 127.0.0.0/8 } masquerade
//	    }
//	}
//
// See docs/adr/0033-what-the-host-does-to-pods.md.
package hostports

import (
	"fmt"
	"net/netip"
	"slices"

	"weft/internal/hostfilter"
)

// Port is a port of the host that leads to a port of a container.
type Port struct {
	Network, ContainerID, Ifname string // the attachment, as CNI calls it
	Name                         string // of the container, for messages

	HostAddr netip.Addr // of the host; invalid: all
	HostPort uint16
	Protocol string         // tcp, udp or sctp
	Target   netip.AddrPort // of the container
}

// String returns the port as an operator knows it, such as "8080/tcp of default/web".
func (p Port) String() string { return fmt.Sprintf("%d/%s of %s", p.HostPort, p.Protocol, p.Name) }

// Missing returns the ports for which no rule changes the destination of packets to an address of the host: self, or the address of
// the port. The rules of this package do not count.
func Missing(rules hostfilter.Ruleset, ports []Port, self netip.Addr) (missing []Port) {
	rules = rules.Without(Table)
	for _, p := range ports {
		addr := self
		switch {
		case p.HostAddr.IsValid():
			addr = p.HostAddr
		case self.Is4() != p.Target.Addr().Is4():
			addr = loopback(p.Target.Addr()) // some address of the host with that family
		}
		if !hostfilter.Translated(rules, hostfilter.ToHost(addr, "", p.Protocol, p.HostPort)) {
			missing = append(missing, p)
		}
	}
	return missing
}

func loopback(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// Names returns the ports as texts, sorted.
func Names(ports []Port) []string {
	names := make([]string, 0, len(ports))
	for _, p := range ports {
		names = append(names, p.String())
	}
	slices.Sort(names)
	return slices.Compact(names)
}
