package nettest

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Names of interfaces in a lab.
const (
	bridgeName = "underlay" // in the switch
	hostIfname = "eth0"     // in a host
)

// Host is a machine of the lab: a namespace with one interface, eth0, on the underlay, and a folder.
type Host struct {
	*Space

	// Constant after AddHost.
	lab    *Lab
	name   string
	number int
	dir    string
	// private is the address of a host behind a NAT; the zero Addr if the host is on the underlay itself.
	private netip.Addr

	// Guarded by mu.
	mu        sync.Mutex
	processes []*Process
}

// Pod is a namespace that belongs to a host. It has only a loopback interface at first.
type Pod struct {
	*Space
	host *Host
}

// AddHost adds a host and connects it to the switch. A name has up to 24 characters: a-z, digits and dashes.
func (l *Lab) AddHost(name string) (*Host, error) {
	if !goodName.MatchString(name) {
		return nil, fmt.Errorf("nettest: bad host name %q", name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.hosts) >= maxHosts {
		return nil, fmt.Errorf("nettest: a lab has at most %d hosts", maxHosts)
	}
	s, err := l.addSpace(name)
	if err != nil {
		return nil, err
	}
	h := &Host{Space: s, lab: l, name: name, number: len(l.hosts) + 1, dir: filepath.Join(l.dir, name)}
	l.hosts = append(l.hosts, h)
	if err := os.Mkdir(h.dir, 0o700); err != nil {
		return nil, fmt.Errorf("nettest: %w", err)
	}
	if err := l.plugIn(h); err != nil {
		return nil, fmt.Errorf("nettest: plugging in %s: %w", name, err)
	}
	return h, nil
}

// AddPod adds an empty namespace for a pod; its name must be new on this host.
func (h *Host) AddPod(name string) (*Pod, error) {
	if !goodName.MatchString(name) {
		return nil, fmt.Errorf("nettest: bad pod name %q", name)
	}
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	s, err := h.lab.addSpace(h.name + "." + name)
	if err != nil {
		return nil, err
	}
	s.cores = h.cores
	return &Pod{Space: s, host: h}, nil
}

// Label returns the name that was given to AddHost.
func (h *Host) Label() string { return h.name }

// Addr returns the host's IPv4 address: on the underlay, or behind its NAT.
func (h *Host) Addr() netip.Addr {
	if h.private.IsValid() {
		return h.private
	}
	return nth(underlay4, h.number)
}

// Addr6 returns the host's IPv6 address on the underlay.
func (h *Host) Addr6() netip.Addr { return nth(underlay6, h.number) }

// Dir returns the host's folder, which exists until the lab is closed.
func (h *Host) Dir() string { return h.dir }

// StateDir returns a path in the host's folder for a daemon's state. The lab does not create it.
func (h *Host) StateDir() string { return filepath.Join(h.dir, "state") }

// Socket returns a path in the host's folder for a daemon's socket. The lab does not create it.
func (h *Host) Socket() string { return filepath.Join(h.dir, "weft.sock") }

// Host returns the host that the pod belongs to.
func (p *Pod) Host() *Host { return p.host }

// Port returns the name of the host's port on the switch.
func (h *Host) Port() string { return fmt.Sprintf("port%d", h.number) }

// nth returns the address of a prefix with the last byte n, which must be below 256.
func nth(p netip.Prefix, n int) netip.Addr {
	b := p.Addr().AsSlice()
	b[len(b)-1] = byte(n)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// addSwitch creates the namespace of the switch and the bridge in it.
func (l *Lab) addSwitch() (err error) {
	if l.underlay, err = l.addSpace("switch"); err != nil {
		return err
	}
	return l.underlay.netlink(func(h *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = bridgeName, l.config.MTU
		snooping := false
		bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
		if err := h.LinkAdd(bridge); err != nil {
			return fmt.Errorf("nettest: adding the switch: %w", err)
		}
		return configure(h, bridgeName, switch4, switch6)
	})
}

// plugIn connects a host to the switch and configures its addresses and default routes.
func (l *Lab) plugIn(h *Host) error {
	fd, err := netns.GetFromPath(h.Path())
	if err != nil {
		return err
	}
	defer func() { _ = fd.Close() }()
	err = l.underlay.netlink(func(nl *netlink.Handle) error {
		bridge, err := nl.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = h.Port(), l.config.MTU
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: hostIfname, PeerMTU: uint32(l.config.MTU), PeerNamespace: netlink.NsFd(fd)}
		if err := nl.LinkAdd(veth); err != nil {
			return err
		}
		if err := nl.LinkSetMaster(veth, bridge); err != nil {
			return err
		}
		return nl.LinkSetUp(veth)
	})
	if err != nil {
		return err
	}
	return h.netlink(func(nl *netlink.Handle) error {
		if err := configure(nl, hostIfname, h.Addr(), h.Addr6()); err != nil {
			return err
		}
		return addDefaults(nl)
	})
}

// configure brings an interface up and adds its addresses.
func configure(h *netlink.Handle, ifname string, v4, v6 netip.Addr) error {
	for _, p := range []netip.Prefix{netip.PrefixFrom(v4, underlay4.Bits()), netip.PrefixFrom(v6, underlay6.Bits())} {
		if p.Addr().Is6() && !hasIPv6() {
			continue
		}
		if err := addAddr(h, ifname, p); err != nil {
			return fmt.Errorf("adding %s: %w", p, err)
		}
	}
	return nil
}

// addDefaults adds default routes through the switch.
func addDefaults(h *netlink.Handle) error {
	gateways := []netip.Addr{switch4}
	if hasIPv6() {
		gateways = append(gateways, switch6)
	}
	for _, gw := range gateways {
		if err := h.RouteAdd(&netlink.Route{Gw: gw.AsSlice()}); err != nil {
			return fmt.Errorf("default route via %s: %w", gw, err)
		}
	}
	return nil
}

// hasIPv6 reports whether the kernel supports IPv6.
func hasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}

// Lab returns the lab that the host is in.
func (h *Host) Lab() *Lab { return h.lab }
