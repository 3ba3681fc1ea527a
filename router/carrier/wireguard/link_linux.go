package wireguard

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"weft/internal/netdump"
	"weft/internal/peer"
	"weft/router/carrier/vxlan"
)

// alias marks devices that weft made; "ip link" shows it.
const alias = "weft"

// keepalive is the time between packets of a node behind an address translator (wg(8), PersistentKeepalive).
const keepalive = 25 * time.Second

// link is the WireGuard device. Its methods are called by one goroutine at a time.
type link struct {
	cfg    Config
	nl     *netlink.Handle
	client *timed
	made   bool
	set    map[peer.ID]Tunnel // the peers of the device
}

// openLink makes the device, or takes over the one that exists, without peers. On an error nothing is left behind.
func openLink(cfg Config) (_ *link, err error) {
	l := &link{cfg: cfg, set: map[peer.ID]Tunnel{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close(false))
		}
	}()
	if l.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("wireguard: netlink: %w", err)
	}
	if l.client, err = newTimed(); err != nil {
		return nil, err
	}
	if err := l.create(); err != nil {
		return nil, err
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	if err := l.enableIPv6(); err != nil {
		return nil, err
	}
	l.made = true // what is configured from now on is undone
	return l, l.configure(map[peer.ID]Tunnel{})
}

// create makes the link, in place of one that an earlier run left, unless it exists by configuration.
func (l *link) create() error {
	found, err := l.nl.LinkByName(l.cfg.Name)
	_, absent := errors.AsType[netlink.LinkNotFoundError](err)
	switch {
	case l.cfg.Existing && absent:
		return fmt.Errorf("wireguard: %w: there is no device %s", ErrNoWireGuard, l.cfg.Name)
	case l.cfg.Existing && err == nil:
		return l.mark(found)
	case absent:
	case err != nil:
		return fmt.Errorf("wireguard: %s: %w", l.cfg.Name, err)
	case !isOurs(found):
		return fmt.Errorf("wireguard: %s is a %s that weft did not make: %w: delete it (ip link del %s), or use --carriers without wireguard",
			l.cfg.Name, found.Type(), ErrNotOurs, l.cfg.Name)
	default:
		if err := l.delete(found); err != nil {
			return err
		}
	}
	made := &netlink.Wireguard{LinkAttrs: netlink.NewLinkAttrs()}
	made.Name = l.cfg.Name
	if err := l.nl.LinkAdd(made); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = fmt.Errorf("%w: load the module (modprobe wireguard), or use --carriers without wireguard: %w", ErrNoWireGuard, err)
		}
		return fmt.Errorf("wireguard: make %s: %w", l.cfg.Name, err)
	}
	l.made = true
	return l.mark(made)
}

// mark marks the device, so that a later run finds what this one has left.
func (l *link) mark(device netlink.Link) error {
	if err := l.nl.LinkSetAlias(device, alias); err != nil {
		return fmt.Errorf("wireguard: mark %s: %w", l.cfg.Name, err)
	}
	return nil
}

// enableIPv6 makes the kernel take addresses of IPv6 on the device, in the network namespace of the calling thread. Where /proc/sys is
// read-only, as in many containers, the address says whether that was necessary.
func (l *link) enableIPv6() error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+l.cfg.Name+"/disable_ipv6", []byte("0"), 0)
	return noIPv6(err)
}

// noIPv6 returns an error if err says that a file of the kernel's IPv6 does not exist.
func noIPv6(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("wireguard: %w: this kernel has no IPv6, which the tunnels use inside", ErrNoWireGuard)
	}
	return nil
}

// Available returns nil if this host has WireGuard, with a device called name if that exists by configuration. It changes nothing for
// longer than a moment. The error wraps ErrNoWireGuard.
func Available(name string, existing bool) error {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("wireguard: netlink: %w", err)
	}
	defer nl.Close()
	_, err = os.Stat("/proc/sys/net/ipv6")
	if err := noIPv6(err); err != nil {
		return err
	}
	if existing {
		client, err := newTimed()
		if err != nil {
			return err
		}
		defer client.Close()
		if _, err := client.Device(name); err != nil {
			return fmt.Errorf("wireguard: %w: %s: %w", ErrNoWireGuard, name, err)
		}
		return nil
	}
	if found, err := nl.LinkByName(name); err == nil && isOurs(found) {
		return nil // of an earlier run
	}
	test := &netlink.Wireguard{LinkAttrs: netlink.NewLinkAttrs()}
	test.Name = "weftwgtest"
	if err := nl.LinkAdd(test); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("wireguard: %w: load the module (modprobe wireguard): %w", ErrNoWireGuard, err)
	}
	return nl.LinkDel(test)
}

// RemoveOthers removes the devices that earlier runs left on the host, but the one called except: those that they made, and from those that
// exist by configuration what they configured. It is no error if there is none.
func RemoveOthers(except string) error {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("wireguard: netlink: %w", err)
	}
	defer nl.Close()
	links, err := netdump.Repeat(nl.LinkList)
	if err != nil {
		return fmt.Errorf("wireguard: list links: %w", err)
	}
	var errs []error
	for _, found := range links {
		marked := found.Attrs().Alias == alias && (found.Type() == "wireguard" || found.Type() == "tuntap")
		if marked && found.Attrs().Name != except {
			errs = append(errs, removeLeft(nl, found))
		}
	}
	return errors.Join(errs...)
}

// removeLeft removes a marked device, unless it is none of WireGuard.
func removeLeft(nl *netlink.Handle, found netlink.Link) error {
	l := &link{cfg: Config{Name: found.Attrs().Name}, nl: nl}
	if isOurs(found) {
		return l.delete(found)
	}
	var err error
	if l.client, err = newTimed(); err != nil {
		return err
	}
	defer l.client.Close()
	if _, err := l.client.Device(l.cfg.Name); err != nil {
		return nil // the TAP, for example
	}
	return l.reset(found)
}

// isOurs reports whether weft made a link, in this run or an earlier one.
func isOurs(found netlink.Link) bool {
	return found.Type() == "wireguard" && found.Attrs().Alias == alias
}

// check returns an error if the device has peers that weft did not add.
func (l *link) check() error {
	device, err := l.client.Device(l.cfg.Name)
	if err != nil {
		return fmt.Errorf("wireguard: %w: %s: %w", ErrNoWireGuard, l.cfg.Name, err)
	}
	for _, p := range device.Peers {
		if len(p.AllowedIPs) != 1 || !isInside(p.AllowedIPs[0]) {
			return fmt.Errorf("wireguard: %s has the peer %s, for %v, that weft did not add: %w: weft needs a device of its own",
				l.cfg.Name, p.PublicKey, p.AllowedIPs, ErrNotOurs)
		}
	}
	return nil
}

// isInside reports whether a network is the address of a node inside tunnels.
func isInside(n net.IPNet) bool {
	a, ok := netip.AddrFromSlice(n.IP)
	return ok && prefix.Contains(a)
}

// configure sets key, port, address and MTU of the device, and makes peers its only ones. It brings it up.
func (l *link) configure(peers map[peer.ID]Tunnel) error {
	l.set = maps.Clone(peers)
	port := int(l.cfg.Port)
	c := wgtypes.Config{PrivateKey: &l.cfg.Private, ListenPort: &port, ReplacePeers: true}
	for id, t := range peers {
		c.Peers = append(c.Peers, peerConfig(id, t, true))
	}
	if err := l.client.ConfigureDevice(l.cfg.Name, c); err != nil {
		return fmt.Errorf("wireguard: configure %s: %w", l.cfg.Name, l.inUse(err))
	}
	return l.setUp()
}

// inUse explains that the port is in use, if err says so.
func (l *link) inUse(err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%w: stop the program that listens on UDP port %d (ss -lnup shows it): %w", vxlan.ErrPortInUse, l.cfg.Port, err)
	}
	return err
}

// setUp sets address and MTU of the device, and brings it up.
func (l *link) setUp() error {
	found, err := l.nl.LinkByName(l.cfg.Name)
	if err != nil {
		return fmt.Errorf("wireguard: %s: %w", l.cfg.Name, err)
	}
	mtu := l.cfg.VXLAN.MTU + vxlan.Overhead6
	if found.Attrs().MTU != mtu {
		if err := l.nl.LinkSetMTU(found, mtu); err != nil {
			return fmt.Errorf("wireguard: MTU of %s: %w", l.cfg.Name, err)
		}
	}
	own := Address(l.cfg.VXLAN.Self)
	address := &netlink.Addr{
		IPNet: &net.IPNet{IP: own.AsSlice(), Mask: net.CIDRMask(prefix.Bits(), own.BitLen())}, Flags: unix.IFA_F_NODAD,
	}
	if err := l.nl.AddrReplace(found, address); err != nil {
		return fmt.Errorf("wireguard: address of %s: %w", l.cfg.Name, err)
	}
	if err := l.nl.LinkSetUp(found); err != nil { // the kernel takes the port here
		return fmt.Errorf("wireguard: bring %s up: %w", l.cfg.Name, l.inUse(err))
	}
	return nil
}

// peerConfig returns the configuration of a peer. The endpoint is left out if it has not changed, as the peer may have been seen elsewhere
// since.
func peerConfig(id peer.ID, t Tunnel, endpoint bool) wgtypes.PeerConfig {
	inside := Address(id)
	c := wgtypes.PeerConfig{
		PublicKey: t.Public, PresharedKey: &t.Preshared, ReplaceAllowedIPs: true,
		AllowedIPs: []net.IPNet{{IP: inside.AsSlice(), Mask: net.CIDRMask(inside.BitLen(), inside.BitLen())}},
	}
	if endpoint && t.Endpoint.IsValid() {
		c.Endpoint = net.UDPAddrFromAddrPort(t.Endpoint)
	}
	every := time.Duration(0)
	if t.Keepalive {
		every = keepalive
	}
	c.PersistentKeepaliveInterval = &every
	return c
}

// setPeers makes peers the only ones of the device. What has not changed is left as it is, with its keys and its endpoint.
func (l *link) setPeers(peers map[peer.ID]Tunnel) error {
	var removed, changed wgtypes.Config
	for id, t := range l.set {
		if now, ok := peers[id]; !ok || now.Public != t.Public {
			removed.Peers = append(removed.Peers, wgtypes.PeerConfig{PublicKey: t.Public, Remove: true})
		}
	}
	for id, t := range peers {
		before, ok := l.set[id]
		if !ok || before != t {
			changed.Peers = append(changed.Peers, peerConfig(id, t, !ok || before.Endpoint != t.Endpoint || before.Public != t.Public))
		}
	}
	l.set = maps.Clone(peers)                              // if this fails, intact finds out
	for _, c := range []wgtypes.Config{removed, changed} { // a key may be in both
		if len(c.Peers) == 0 {
			continue
		}
		if err := l.client.ConfigureDevice(l.cfg.Name, c); err != nil {
			return fmt.Errorf("wireguard: peers of %s: %w", l.cfg.Name, err)
		}
	}
	return nil
}

// intact reports whether the device is configured as it was set last.
func (l *link) intact() (bool, error) {
	device, err := l.client.Device(l.cfg.Name)
	if err != nil {
		return false, fmt.Errorf("wireguard: %s: %w", l.cfg.Name, err)
	}
	if device.PrivateKey != l.cfg.Private || device.ListenPort != int(l.cfg.Port) || len(device.Peers) != len(l.set) {
		return false, nil
	}
	found := map[wgtypes.Key]wgtypes.Peer{}
	for _, p := range device.Peers {
		found[p.PublicKey] = p
	}
	for id, t := range l.set {
		p, ok := found[t.Public]
		if !ok || p.PresharedKey != t.Preshared || len(p.AllowedIPs) != 1 || !p.AllowedIPs[0].IP.Equal(Address(id).AsSlice()) {
			return false, nil
		}
	}
	return true, nil
}

// close removes the device, or if it existed before what was configured, unless keep is set.
func (l *link) close(keep bool) error {
	var errs []error
	if l.made && !keep {
		errs = append(errs, l.remove())
	}
	if l.client != nil {
		errs = append(errs, l.client.Close())
	}
	if l.nl != nil {
		l.nl.Close()
	}
	return errors.Join(errs...)
}

// remove removes the device, or if it existed before what was configured.
func (l *link) remove() error {
	found, err := l.nl.LinkByName(l.cfg.Name)
	if _, absent := errors.AsType[netlink.LinkNotFoundError](err); absent {
		return nil
	}
	if err != nil {
		return fmt.Errorf("wireguard: %s: %w", l.cfg.Name, err)
	}
	if !l.cfg.Existing {
		return l.delete(found)
	}
	return l.reset(found)
}

// delete deletes the device.
func (l *link) delete(found netlink.Link) error {
	if err := l.nl.LinkDel(found); err != nil {
		return fmt.Errorf("wireguard: delete %s: %w", l.cfg.Name, err)
	}
	return nil
}

// reset takes addresses inside tunnels, key, peers and mark from a device that existed before.
func (l *link) reset(found netlink.Link) error {
	addresses, err := netdump.Repeat(func() ([]netlink.Addr, error) { return l.nl.AddrList(found, netlink.FAMILY_V6) })
	for _, a := range addresses {
		if isInside(*a.IPNet) {
			err = errors.Join(err, l.nl.AddrDel(found, &a))
		}
	}
	return errors.Join(err, l.client.ConfigureDevice(l.cfg.Name, wgtypes.Config{PrivateKey: &wgtypes.Key{}, ReplacePeers: true}),
		l.nl.LinkSetAlias(found, ""))
}
