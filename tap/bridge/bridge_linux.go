// Package bridge keeps the Linux bridge on which the pods of a node and its TAP meet.
//
// A bridge that Ensure makes is marked by its alias, "weft", and is set up in full; one that it finds is adopted: it
// gets the MTU and is brought up, and everything else about it, its other ports above all, stays as its owner has it.
package bridge

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
)

// Errors that callers branch on; they are wrapped in sentences that name the link and the mend.
var (
	// ErrNotBridge: a link of the name exists and is something else.
	ErrNotBridge = errors.New("not a bridge")
	// ErrNotOurs: the bridge was not made by weft, and is not weft's to take away.
	ErrNotOurs = errors.New("not made by weft")
	// ErrPortTaken: the link is a port of something else already.
	ErrPortTaken = errors.New("already a port of another link")
	// ErrNoIsolation: the kernel cannot isolate bridge ports, which Linux can since 4.18.
	ErrNoIsolation = errors.New("bridge ports cannot be isolated: Linux 4.18 or newer is needed")
)

// alias marks a bridge of ours; "ip link" shows it.
const alias = "weft"

// Config describes the bridge that Ensure brings about.
type Config struct {
	// Name of the bridge.
	Name string
	// MTU in bytes.
	MTU int
	// MAC is the bridge's own address when Ensure makes it; zero for a random one. A bridge that exists keeps its own.
	MAC ether.Addr
}

// Bridge is a bridge that exists. Its methods may be called from any goroutine; they act in the network namespace in
// which Ensure was called, until Close.
type Bridge struct {
	nl    *netlink.Handle
	name  string
	index int
}

// Ensure makes the bridge that cfg describes, or adopts the one that has its name, and brings it up. The error wraps
// ErrNotBridge where the name belongs to some other kind of link, which is left as it is. What a failed Ensure has made
// it takes away again.
func Ensure(cfg Config) (*Bridge, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("bridge: %s: netlink: %w", cfg.Name, err)
	}
	b, err := ensure(nl, cfg)
	if err != nil {
		nl.Close()
		return nil, err
	}
	return b, nil
}

func ensure(nl *netlink.Handle, cfg Config) (*Bridge, error) {
	info, err := inspect(nl, cfg.Name)
	switch {
	case err != nil:
		return nil, err
	case info.State == Other:
		return nil, fmt.Errorf("bridge: %s is %w but a %s: choose another name", cfg.Name, ErrNotBridge, info.Kind)
	case info.State == Absent:
		if err := create(nl, cfg); err != nil {
			return nil, err
		}
	}
	b, err := adopt(nl, cfg)
	if err != nil && info.State == Absent {
		_ = remove(nl, cfg.Name)
	}
	return b, err
}

// create makes the bridge. Spanning tree is off in a new bridge, as it must be: its frames never cross the overlay, so
// that every node would elect a root of its own and hold ports back for nothing.
func create(nl *netlink.Handle, cfg Config) error {
	mac := cfg.MAC
	if mac.IsZero() {
		_, _ = rand.Read(mac[:]) // never fails
		mac[0] = mac[0]&^1 | 2   // unicast, locally administered
	}
	link := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	link.Name = cfg.Name
	// The kernel lets a bridge's MTU follow its smallest port until somebody changes it, and to set what is set already
	// is no change: so it starts out with another one than adopt will set.
	link.MTU = cfg.MTU - 1
	// With an address of its own a bridge does not take over its lowest port's, which would change under the
	// neighbour caches of the pods whenever one comes or goes.
	link.HardwareAddr = net.HardwareAddr(mac[:])
	// A snooping bridge sends multicast only to ports that have joined, which it learns from the answers to a querier's
	// questions. An overlay has no querier, so that the groups which pods on other nodes have joined would fall silent
	// after minutes: multicast has to flood.
	snooping := false
	link.MulticastSnooping = &snooping
	if err := nl.LinkAdd(link); err != nil {
		return fmt.Errorf("bridge: make %s: %w", cfg.Name, err)
	}
	if err := nl.LinkSetAlias(link, alias); err != nil {
		return errors.Join(fmt.Errorf("bridge: mark %s: %w", cfg.Name, err), nl.LinkDel(link))
	}
	return nil
}

func adopt(nl *netlink.Handle, cfg Config) (*Bridge, error) {
	link, err := nl.LinkByName(cfg.Name)
	if err != nil {
		return nil, fmt.Errorf("bridge: %s: %w", cfg.Name, err)
	}
	b := &Bridge{nl: nl, name: cfg.Name, index: link.Attrs().Index}
	if err := b.SetMTU(cfg.MTU); err != nil {
		return nil, err
	}
	if err := nl.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("bridge: bring %s up: %w", cfg.Name, err)
	}
	return b, nil
}

// Name returns the bridge's name.
func (b *Bridge) Name() string { return b.name }

// Index returns the bridge's interface index.
func (b *Bridge) Index() int { return b.index }

// Close lets go of the netlink socket; the bridge stays.
func (b *Bridge) Close() { b.nl.Close() }

// SetMTU sets the bridge's own MTU in bytes, which from then on no longer follows the smallest of its ports.
func (b *Bridge) SetMTU(mtu int) error {
	link, err := b.nl.LinkByIndex(b.index)
	if err != nil {
		return fmt.Errorf("bridge: %s: %w", b.name, err)
	}
	if err := b.nl.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("bridge: %s: set MTU %d: %w", b.name, mtu, err)
	}
	return nil
}

// MAC returns the bridge's own address.
func (b *Bridge) MAC() (ether.Addr, error) {
	link, err := b.nl.LinkByIndex(b.index)
	if err != nil {
		return ether.Addr{}, fmt.Errorf("bridge: %s: %w", b.name, err)
	}
	var mac ether.Addr
	copy(mac[:], link.Attrs().HardwareAddr)
	return mac, nil
}

// Remove deletes the bridge called name if weft made it; its ports fall off it. That there is none is no error;
// ErrNotBridge and ErrNotOurs say what is left alone.
func Remove(name string) error {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("bridge: %s: netlink: %w", name, err)
	}
	defer nl.Close()
	return remove(nl, name)
}

func remove(nl *netlink.Handle, name string) error {
	info, err := inspect(nl, name)
	switch {
	case err != nil:
		return err
	case info.State == Absent:
		return nil
	case info.State == Other:
		return fmt.Errorf("bridge: %s is %w but a %s: left alone", name, ErrNotBridge, info.Kind)
	case !info.Ours:
		return fmt.Errorf("bridge: %s is %w: left alone", name, ErrNotOurs)
	}
	link, err := nl.LinkByIndex(info.Index)
	if err == nil {
		err = nl.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("bridge: delete %s: %w", name, err)
	}
	return nil
}
