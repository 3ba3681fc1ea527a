package nettest

import (
	"context"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
)

// cutTable drops frames from one port of the switch to another if the pair is in the set. It is in the switch's namespace,
// separate from the nftables rules of the hosts.
const cutTable = `table bridge lab {
	set cut { type ifname . ifname; }
	chain forward {
		type filter hook forward priority 0;
		meta iifname . meta oifname @cut drop;
	}
}
`

// Cut makes the underlay drop everything between two hosts, in both directions. The hosts see no error. A second call
// changes nothing.
func (h *Host) Cut(ctx context.Context, other *Host) error {
	return h.lab.nft(ctx, "add", h, other)
}

// Heal undoes Cut and CutTo. It changes nothing if the hosts are not cut.
func (h *Host) Heal(ctx context.Context, other *Host) error {
	// nft cannot delete an element that does not exist, so add it first.
	return h.lab.nft(ctx, "add", h, other, "delete")
}

// CutTo makes the underlay drop what the host sends to other, but not the other direction. Heal undoes it.
func (h *Host) CutTo(ctx context.Context, other *Host) error {
	return h.lab.nftPairs(ctx, [][2]*Host{{h, other}}, "add")
}

// Unplug removes the carrier of the host's eth0, as if the cable were pulled.
func (h *Host) Unplug() error { return h.setPort((*netlink.Handle).LinkSetDown) }

// Plug undoes Unplug.
func (h *Host) Plug() error { return h.setPort((*netlink.Handle).LinkSetUp) }

func (h *Host) setPort(set func(*netlink.Handle, netlink.Link) error) error {
	return h.lab.underlay.netlink(func(nl *netlink.Handle) error {
		port, err := nl.LinkByName(h.Port())
		if err != nil {
			return fmt.Errorf("nettest: port of %s: %w", h.name, err)
		}
		return set(nl, port)
	})
}

// nft applies verbs to both directions of a pair of hosts in the set of cuts, in one transaction.
func (l *Lab) nft(ctx context.Context, verb string, a, b *Host, more ...string) error {
	return l.nftPairs(ctx, [][2]*Host{{a, b}, {b, a}}, append([]string{verb}, more...)...)
}

// nftPairs applies each verb ("add", "delete") to all pairs in the set of cuts, in one transaction.
func (l *Lab) nftPairs(ctx context.Context, pairs [][2]*Host, verbs ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var script strings.Builder
	if !l.cut {
		script.WriteString(cutTable)
	}
	for _, verb := range verbs {
		for _, p := range pairs {
			if p[0].lab != p[1].lab {
				return fmt.Errorf("nettest: %s and %s are in different labs", p[0].name, p[1].name)
			}
			fmt.Fprintf(&script, "%s element bridge lab cut { %q . %q }\n", verb, p[0].Port(), p[1].Port())
		}
	}
	cmd := l.underlay.Command(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nettest: cutting %s from %s: %w: %s", pairs[0][0].name, pairs[0][1].name, err, strings.TrimSpace(string(out)))
	}
	l.cut = true
	return nil
}
