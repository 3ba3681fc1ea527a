package nettest

import (
	"context"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
)

// cutTable drops what goes from one port of the switch to another when the pair is in the set. It is in the switch's
// namespace, so what the hosts have of nftables stays theirs.
const cutTable = `table bridge lab {
	set cut { type ifname . ifname; }
	chain forward {
		type filter hook forward priority 0;
		meta iifname . meta oifname @cut drop;
	}
}
`

// Cut makes the underlay drop everything between two hosts, in both directions, without either end noticing. Cutting
// again changes nothing.
func (h *Host) Cut(ctx context.Context, other *Host) error {
	return h.lab.nft(ctx, "add", h, other)
}

// Heal undoes Cut. Healing what is not cut changes nothing.
func (h *Host) Heal(ctx context.Context, other *Host) error {
	// Adding first makes the deletion succeed whatever was there.
	return h.lab.nft(ctx, "add", h, other, "delete")
}

// Unplug takes the carrier from the host's eth0, as if somebody had pulled the cable.
func (h *Host) Unplug() error { return h.setPort((*netlink.Handle).LinkSetDown) }

// Plug undoes Unplug.
func (h *Host) Plug() error { return h.setPort((*netlink.Handle).LinkSetUp) }

func (h *Host) setPort(set func(*netlink.Handle, netlink.Link) error) error {
	return h.lab.underlay.netlink(func(nl *netlink.Handle) error {
		port, err := nl.LinkByName(h.port())
		if err != nil {
			return fmt.Errorf("nettest: port of %s: %w", h.name, err)
		}
		return set(nl, port)
	})
}

// nft applies one or two verbs to the pair of hosts in the set of cuts, in one transaction.
func (l *Lab) nft(ctx context.Context, verb string, a, b *Host, more ...string) error {
	if a.lab != b.lab {
		return fmt.Errorf("nettest: %s and %s are in different labs", a.name, b.name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var script strings.Builder
	if !l.cut {
		script.WriteString(cutTable)
	}
	for _, v := range append([]string{verb}, more...) {
		fmt.Fprintf(&script, "%s element bridge lab cut { %q . %q, %q . %q }\n", v, a.port(), b.port(), b.port(), a.port())
	}
	cmd := l.underlay.Command(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nettest: cutting %s from %s: %w: %s", a.name, b.name, err, strings.TrimSpace(string(out)))
	}
	l.cut = true
	return nil
}
