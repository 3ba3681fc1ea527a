package nettest

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// insideIfname is the interface of a NAT to the host behind it.
const insideIfname = "inside"

// natTable masquerades traffic to the underlay, and accepts only replies in the other direction.
const natTable = `table ip nat {
	chain postrouting {
		type nat hook postrouting priority srcnat;
		oifname "eth0" masquerade;
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		iifname "inside" accept;
		ct state established,related accept;
	}
}
`

// AddHostBehindNAT adds a host that reaches the underlay only through its own NAT, which uses Linux masquerading. Other
// hosts can only reply to it. Its Addr is private. It has IPv4 only.
func (l *Lab) AddHostBehindNAT(ctx context.Context, name string) (*Host, error) {
	nat, err := l.AddHost(name + "-nat")
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s, err := l.addSpace(name)
	if err != nil {
		return nil, err
	}
	h := &Host{Space: s, lab: l, name: name, number: nat.number, dir: filepath.Join(l.dir, name)}
	inside := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 30, byte(nat.number), 1}), 24)
	h.private = inside.Addr().Next()
	if err := os.Mkdir(h.dir, 0o700); err != nil {
		return nil, fmt.Errorf("nettest: %w", err)
	}
	if err := joinInside(nat, h, inside); err != nil {
		return nil, fmt.Errorf("nettest: putting %s behind a NAT: %w", name, err)
	}
	l.hosts = append(l.hosts, h)
	err = nat.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
	if err != nil {
		return nil, fmt.Errorf("nettest: enabling forwarding on %s: %w", nat.name, err)
	}
	cmd := nat.Command(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(natTable)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("nettest: NAT of %s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return h, nil
}

// joinInside connects a NAT, which gets the address inside, to the host behind it.
func joinInside(nat, h *Host, inside netip.Prefix) error {
	fd, err := netns.GetFromPath(h.Path())
	if err != nil {
		return err
	}
	defer func() { _ = fd.Close() }()
	err = nat.netlink(func(nl *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = insideIfname
		if err := nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: hostIfname, PeerNamespace: netlink.NsFd(fd)}); err != nil {
			return err
		}
		return addAddr(nl, insideIfname, inside)
	})
	if err != nil {
		return err
	}
	return h.netlink(func(nl *netlink.Handle) error {
		if err := addAddr(nl, hostIfname, netip.PrefixFrom(h.private, inside.Bits())); err != nil {
			return err
		}
		return nl.RouteAdd(&netlink.Route{Gw: inside.Addr().AsSlice()})
	})
}

// addAddr brings an interface up and adds an address to it.
func addAddr(h *netlink.Handle, ifname string, p netip.Prefix) error {
	link, err := h.LinkByName(ifname)
	if err != nil {
		return err
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(p.String())
	if err != nil {
		return err
	}
	return h.AddrAdd(link, addr)
}
