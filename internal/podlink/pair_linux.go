package podlink

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
)

// typeVeth is the kernel's name for the type of links that are ends of a pair.
const typeVeth = "veth"

// ends are the namespaces of the two ends of a pair, with a netlink socket in each. It belongs to one call.
type ends struct {
	host, pod *netlink.Handle
	space     ns.NetNS // of the pod; nil: that of the host
}

// openEnds opens the calling thread's namespace and the one at path.
func openEnds(path string) (*ends, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %q does not exist", ErrNetns, path)
	}
	space, err := ns.GetNS(path)
	if _, other := errors.AsType[ns.NSPathNotNSErr](err); other {
		return nil, fmt.Errorf("%w: %q is another kind of file", ErrNetns, path)
	} else if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrNetns, path, err)
	}
	// GetNS also accepts other files of the same file systems.
	if kind, err := unix.IoctlRetInt(int(space.Fd()), unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		_ = space.Close()
		return nil, fmt.Errorf("%w: %q is another kind of namespace", ErrNetns, path)
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
		return fmt.Errorf("podlink: open the host's namespace: %w", err)
	}
	defer func() { _ = own.Close() }()
	hostFD, podFD := netns.NsHandle(own.Fd()), netns.NsHandle(e.space.Fd())
	if hostFD.Equal(podFD) {
		return fmt.Errorf("%w: %q is the namespace of the host", ErrNetns, e.space.Path())
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

// bridge returns the bridge of that name on the host. Its error wraps ErrNoBridge if there is none.
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

// makePair creates the two ends, down, each in its namespace with its final name, and returns them as the kernel lists them.
func (e *ends) makePair(s Spec) (host, pod netlink.Link, err error) {
	// The kernel also refuses a name in use, but does not report which.
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
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: s.Ifname, PeerMTU: uint32(s.MTU)}
	if e.space != nil {
		veth.PeerNamespace = netlink.NsFd(e.space.Fd())
	}
	if !podMAC.IsZero() {
		veth.PeerHardwareAddr = net.HardwareAddr(podMAC[:])
	}
	if err := e.host.LinkAdd(veth); errors.Is(err, unix.EEXIST) {
		return nil, nil, fmt.Errorf("%w: %q or %q", ErrExists, s.Ifname, s.HostName)
	} else if err != nil {
		return nil, nil, fmt.Errorf("podlink: add the pair %s, %s: %w", s.HostName, s.Ifname, err)
	}
	if host, err = find(e.host, s.HostName); err == nil {
		pod, err = find(e.pod, s.Ifname)
	}
	if err != nil {
		return nil, nil, errors.Join(err, remove(e.host, veth))
	}
	return host, pod, nil
}

// plug makes the host end a port of the bridge and brings it up, without an IPv6 address of its own.
func (e *ends) plug(host, bridge netlink.Link, s Spec) error {
	name := host.Attrs().Name
	origin := s.Origin
	origin.NoHairpin = !s.Hairpin
	if alias := origin.alias(); alias != "" { // before it is a port, so that Ports never returns it without the alias
		if err := e.host.LinkSetAlias(host, alias); err != nil {
			return fmt.Errorf("podlink: set the alias of %s: %w", name, err)
		}
	}
	if err := e.host.LinkSetIP6AddrGenMode(host, nl.IN6_ADDR_GEN_MODE_NONE); err != nil && !noIPv6(err) {
		return fmt.Errorf("podlink: turn off IPv6 addresses of %s: %w", name, err)
	}
	if err := e.host.LinkSetMaster(host, bridge); err != nil {
		return fmt.Errorf("podlink: add %s to the bridge: %w", name, err)
	}
	if s.Hairpin {
		if err := e.host.LinkSetHairpin(host, true); err != nil {
			return fmt.Errorf("podlink: turn on hairpin of %s: %w", name, err)
		}
	}
	if err := e.host.LinkSetUp(host); err != nil {
		return fmt.Errorf("podlink: bring up %s: %w", name, err)
	}
	return nil
}

// isPair reports whether the links in the two namespaces are the ends of one pair.
func (e *ends) isPair(host, pod netlink.Link) bool {
	h, p := host.Attrs(), pod.Attrs()
	if host.Type() != typeVeth || pod.Type() != typeVeth || h.ParentIndex != p.Index || p.ParentIndex != h.Index {
		return false
	}
	id, err := e.host.GetNetNsIdByFd(int(e.space.Fd()))
	return err == nil && id == h.NetNsID
}

// find returns the link of that name. Its error wraps ErrNoLink if there is none.
func find(h *netlink.Handle, name string) (netlink.Link, error) {
	if !validName(name) {
		return nil, fmt.Errorf("%w: %q", ErrNoLink, name)
	}
	l, err := h.LinkByName(name)
	_, missing := errors.AsType[netlink.LinkNotFoundError](err)
	if missing || err == nil && l.Attrs().Name != name { // the kernel also finds alternative names
		return nil, fmt.Errorf("%w: %q", ErrNoLink, name)
	} else if err != nil {
		return nil, fmt.Errorf("podlink: find %s: %w", name, err)
	}
	return l, nil
}

// remove deletes a link, and with it the other end of its pair. It succeeds if the link does not exist.
func remove(h *netlink.Handle, l netlink.Link) error {
	if err := h.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("podlink: remove %s: %w", l.Attrs().Name, err)
	}
	return nil
}

func ignoreNoLink(err error) error {
	if errors.Is(err, ErrNoLink) {
		return nil
	}
	return err
}

// noIPv6 reports whether err means that the kernel has no IPv6.
func noIPv6(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, os.ErrNotExist)
}

// macOf returns a link's MAC, zero if it has no Ethernet address.
func macOf(l netlink.Link) ether.Addr {
	if hw := l.Attrs().HardwareAddr; len(hw) == len(ether.Addr{}) {
		return ether.Addr(hw)
	}
	return ether.Addr{}
}
