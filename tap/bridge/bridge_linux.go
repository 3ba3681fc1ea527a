// Package bridge makes and maintains the Linux bridge with the pods of a node and its TAP as ports.
//
// A bridge that Ensure makes has the alias "weft" as a mark, and is set up completely. An existing bridge is adopted:
// Ensure sets its MTU and brings it up, but does not change anything else of it, in particular not its other ports.
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

// Errors that callers branch on. The errors that wrap them name the link and a remedy.
var (
	// ErrNotBridge: a link of another kind has the name.
	ErrNotBridge = errors.New("not a bridge")
	// ErrNotOurs: weft did not make the bridge, and must not remove it.
	ErrNotOurs = errors.New("not made by weft")
	// ErrPortTaken: the link is already a port of another link.
	ErrPortTaken = errors.New("already a port of another link")
	// ErrNoIsolation: the kernel cannot isolate bridge ports, which needs Linux 4.18.
	ErrNoIsolation = errors.New("bridge ports cannot be isolated: Linux 4.18 or newer is needed")
)

// Alias marks bridges that weft made; "ip link" shows it.
const Alias = "weft"

// Config describes the bridge that Ensure makes or adopts.
type Config struct {
	// Name of the bridge.
	Name string
	// MTU in bytes.
	MTU int
	// MAC is the hardware address of a new bridge; zero stands for a random one. An existing bridge keeps its address.
	MAC ether.Addr
}

// Bridge is an existing bridge. Its methods may be called from any goroutine until Close; they work in the network
// namespace in which Ensure was called.
type Bridge struct {
	nl    *netlink.Handle
	name  string
	index int
}

// Ensure makes the bridge that cfg describes, or adopts the bridge with its name, and brings it up. The error wraps
// ErrNotBridge if a link of another kind has the name; that link is not changed. A failed Ensure removes the bridge
// that it made.
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

// create makes the bridge. The spanning tree protocol is off in a new bridge, as needed: its frames never cross the
// overlay, so every node would elect a root of its own and delay its ports without use.
func create(nl *netlink.Handle, cfg Config) error {
	mac := cfg.MAC
	if mac.IsZero() {
		_, _ = rand.Read(mac[:]) // never fails
		mac[0] = mac[0]&^1 | 2   // unicast, locally administered
	}
	link := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	link.Name = cfg.Name
	// The MTU of a bridge follows its smallest port until it is changed, and setting the same value again is no change.
	// So the bridge starts with another MTU than adopt will set.
	link.MTU = cfg.MTU - 1
	// A bridge with an address of its own does not use the lowest address of its ports, which could change whenever a
	// pod is added or removed, so that the neighbor caches of the other pods would be wrong.
	link.HardwareAddr = net.HardwareAddr(mac[:])
	// A snooping bridge sends multicast only to ports with members of the group, which it learns from the replies to a
	// querier. An overlay has no querier, so pods on other nodes would receive no multicast after some minutes: it has
	// to be flooded.
	snooping := false
	link.MulticastSnooping = &snooping
	if err := nl.LinkAdd(link); err != nil {
		return fmt.Errorf("bridge: make %s: %w", cfg.Name, err)
	}
	if err := nl.LinkSetAlias(link, Alias); err != nil {
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

// Close closes the netlink socket; the bridge stays.
func (b *Bridge) Close() { b.nl.Close() }

// SetMTU sets the MTU of the bridge in bytes. From then on it does not follow the smallest MTU of its ports.
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

// MAC returns the hardware address of the bridge.
func (b *Bridge) MAC() (ether.Addr, error) {
	link, err := b.nl.LinkByIndex(b.index)
	if err != nil {
		return ether.Addr{}, fmt.Errorf("bridge: %s: %w", b.name, err)
	}
	var mac ether.Addr
	copy(mac[:], link.Attrs().HardwareAddr)
	return mac, nil
}

// Remove deletes the bridge called name if weft made it. It is no error if there is none. The error wraps ErrNotBridge
// or ErrNotOurs for a link that is not deleted for that reason.
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
