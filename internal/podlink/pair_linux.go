package podlink

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
)

// typeVeth is the kind of link that the kernel calls one end of a pair.
const typeVeth = "veth"

// ends are the namespaces of the two ends of a pair, with a netlink socket in each. It belongs to one call.
type ends struct {
	host, pod *netlink.Handle
	space     ns.NetNS // of the pod
}

// openEnds opens the calling thread's namespace and the one at path.
func openEnds(path string) (*ends, error) {
	space, err := ns.GetNS(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrNetns, path, err)
	}
	// Files of other kinds on the same file systems get through GetNS.
	if kind, err := unix.IoctlRetInt(int(space.Fd()), unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		_ = space.Close()
		return nil, fmt.Errorf("%w: %q", ErrNetns, path)
	}
	e := &ends{space: space}
	if err := e.open(); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

func (e *ends) open() (err error) {
	own, err := ns.GetCurrentNS()
	if err != nil {
		return fmt.Errorf("podlink: the host's namespace: %w", err)
	}
	defer func() { _ = own.Close() }()
	hostFD, podFD := netns.NsHandle(own.Fd()), netns.NsHandle(e.space.Fd())
	if hostFD.Equal(podFD) {
		return fmt.Errorf("%w: %q is the host's own", ErrNetns, e.space.Path())
	}
	if e.host, err = netlink.NewHandleAt(hostFD, unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("podlink: netlink on the host: %w", err)
	}
	if e.pod, err = netlink.NewHandleAt(podFD, unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("podlink: netlink in %q: %w", e.space.Path(), err)
	}
	return nil
}

func (e *ends) close() {
	for _, h := range []*netlink.Handle{e.host, e.pod} {
		if h != nil {
			h.Close()
		}
	}
	_ = e.space.Close()
}

// bridge returns the bridge of that name on the host.
func (e *ends) bridge(name string) (netlink.Link, error) {
	l, err := find(e.host, name)
	if errors.Is(err, ErrNoLink) {
		return nil, fmt.Errorf("%w: %q", ErrNoBridge, name)
	} else if err != nil {
		return nil, err
	}
	if l.Type() != "bridge" {
		return nil, fmt.Errorf("%w: %q is a %s", ErrNoBridge, name, l.Type())
	}
	return l, nil
}

// makePair makes the two ends, down, each in its namespace under its final name, and returns them as the kernel sees
// them.
func (e *ends) makePair(s Spec) (host, pod netlink.Link, err error) {
	// The kernel would refuse a name in use as well, but not say which.
	for _, at := range []struct {
		handle *netlink.Handle
		name   string
	}{{e.pod, s.Ifname}, {e.host, s.HostName}} {
		if _, err := find(at.handle, at.name); err == nil {
			return nil, nil, fmt.Errorf("%w: %q", ErrExists, at.name)
		} else if !errors.Is(err, ErrNoLink) {
			return nil, nil, err
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = s.HostName, s.MTU
	hostMAC, podMAC := HostLinkMAC(s.HostName), s.PodMAC()
	attrs.HardwareAddr = net.HardwareAddr(hostMAC[:])
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: s.Ifname, PeerMTU: uint32(s.MTU), PeerNamespace: netlink.NsFd(e.space.Fd())}
	if !podMAC.IsZero() {
		veth.PeerHardwareAddr = net.HardwareAddr(podMAC[:])
	}
	if err := e.host.LinkAdd(veth); errors.Is(err, unix.EEXIST) {
		return nil, nil, fmt.Errorf("%w: %q or %q", ErrExists, s.Ifname, s.HostName)
	} else if err != nil {
		return nil, nil, fmt.Errorf("podlink: adding the pair %s, %s: %w", s.HostName, s.Ifname, err)
	}
	if host, err = find(e.host, s.HostName); err == nil {
		pod, err = find(e.pod, s.Ifname)
	}
	if err != nil {
		return nil, nil, errors.Join(err, remove(e.host, veth))
	}
	return host, pod, nil
}

// plug makes the host end an ordinary port of the bridge and brings it up, without an address of its own.
func (e *ends) plug(host, bridge netlink.Link, s Spec) error {
	name := host.Attrs().Name
	if s.Foreign { // before it is a port
		if err := e.host.LinkSetAlias(host, foreignAlias); err != nil {
			return fmt.Errorf("podlink: alias of %s: %w", name, err)
		}
	}
	if err := e.host.LinkSetIP6AddrGenMode(host, nl.IN6_ADDR_GEN_MODE_NONE); err != nil && !noIPv6(err) {
		return fmt.Errorf("podlink: no IPv6 address for %s: %w", name, err)
	}
	if err := e.host.LinkSetMaster(host, bridge); err != nil {
		return fmt.Errorf("podlink: adding %s to the bridge: %w", name, err)
	}
	if s.Hairpin {
		if err := e.host.LinkSetHairpin(host, true); err != nil {
			return fmt.Errorf("podlink: hairpin of %s: %w", name, err)
		}
	}
	if err := e.host.LinkSetUp(host); err != nil {
		return fmt.Errorf("podlink: bringing up %s: %w", name, err)
	}
	return nil
}

// isPair reports whether the links are the two ends of one pair, across the two namespaces.
func (e *ends) isPair(host, pod netlink.Link) bool {
	h, p := host.Attrs(), pod.Attrs()
	if host.Type() != typeVeth || pod.Type() != typeVeth || h.ParentIndex != p.Index || p.ParentIndex != h.Index {
		return false
	}
	id, err := e.host.GetNetNsIdByFd(int(e.space.Fd()))
	return err == nil && id == h.NetNsID
}

// find returns the link of that name; the error wraps ErrNoLink if there is none.
func find(h *netlink.Handle, name string) (netlink.Link, error) {
	if !validName(name) {
		return nil, fmt.Errorf("%w: %q", ErrNoLink, name)
	}
	l, err := h.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) || err == nil && l.Attrs().Name != name { // found by an alternative name
		return nil, fmt.Errorf("%w: %q", ErrNoLink, name)
	} else if err != nil {
		return nil, fmt.Errorf("podlink: looking for %s: %w", name, err)
	}
	return l, nil
}

// remove deletes a link, and with it the other end; that it is gone is success.
func remove(h *netlink.Handle, l netlink.Link) error {
	if err := h.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("podlink: removing %s: %w", l.Attrs().Name, err)
	}
	return nil
}

func ignoreNoLink(err error) error {
	if errors.Is(err, ErrNoLink) {
		return nil
	}
	return err
}

// noIPv6 reports whether the kernel refused because it has no IPv6.
func noIPv6(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, os.ErrNotExist)
}

// macOf returns a link's MAC, zero if it has none of 6 bytes.
func macOf(l netlink.Link) ether.Addr {
	if hw := l.Attrs().HardwareAddr; len(hw) == len(ether.Addr{}) {
		return ether.Addr(hw)
	}
	return ether.Addr{}
}
