package vxlan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/nftsum"
	"weft/internal/peer"
	"weft/router/carrier"
)

// alias marks devices that weft made; "ip link" shows it.
const alias = "weft"

// maxEntries bounds the device's table of addresses, as pods can use any number of them. The router has the same bound.
const maxEntries = 65536

var _ carrier.Carrier = (*Device)(nil)

// Device is the VXLAN device of this node, with its forwarding entries and its filter. Its methods may be called from
// any goroutine; they work in the network namespace in which Open was called.
type Device struct {
	// Constant after Open.
	cfg    Config
	under  int // index of the tunnel below the device; 0: there is none
	index  int
	socket *socket

	// Guarded by filterMu, as a change of the filter takes milliseconds. filter is nil after Close.
	filterMu  sync.Mutex
	ns        netns.NsHandle
	filter    *filter
	filterSum nftsum.Sum // of the filter's table as it was set last
	gate      *gate      // nil: the kernel or the privileges of this process do not allow it
	gateErr   error      // why there is none
	shut      bool       // the device has to be down: nothing filters its senders
	allowed   []netip.Addr

	// Guarded by mu.
	mu      sync.Mutex
	nl      *netlink.Handle
	peers   map[peer.ID]netip.Addr
	byAddr  map[netip.Addr]peer.ID
	carried map[peer.ID]bool
	made    bool
	closed  bool

	kept atomic.Bool // Keep was called
}

// Open makes the device that cfg describes, and its filter, which accepts no sender yet. It replaces a device that an
// earlier run left behind. The device is down: bridge.AddPort brings it up as an isolated port.
//
// The device learns addresses, unlike most devices that a program manages: see docs/adr/0007-vxlan-learns.md. All other
// options are the kernel's defaults: the outer TTL is the host's, and datagrams may be fragmented, which the MTU makes
// unnecessary. Outer UDP has a checksum, also over IPv4, where it is optional: with local checksum offload
// (Documentation/networking/checksum-offloads.rst) the kernel need not read the payload for it, and hardware without
// VXLAN support can check it.
//
// The errors wrap carrier.ErrConfig, ErrNotOurs, ErrPortInUse, ErrNoFilter or ErrNoVXLAN where a caller can react. On an error
// nothing is left behind.
func Open(ctx context.Context, cfg Config) (_ *Device, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	d := &Device{
		cfg: cfg, ns: netns.None(),
		peers: map[peer.ID]netip.Addr{}, byAddr: map[netip.Addr]peer.ID{}, carried: map[peer.ID]bool{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if d.ns, err = netns.Get(); err != nil {
		return nil, fmt.Errorf("vxlan: this network namespace: %w", err)
	}
	if d.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("vxlan: netlink: %w", err)
	}
	if err := check(d.nl, cfg.Name, cfg.Port); err != nil {
		return nil, err
	}
	if d.filter, err = openFilter(cfg); err != nil {
		return nil, err
	}
	if cfg.Under != "" {
		link, err := d.nl.LinkByName(cfg.Under)
		if err != nil {
			return nil, fmt.Errorf("vxlan: the tunnel %s: %w", cfg.Under, err)
		}
		d.under = link.Attrs().Index
	}
	d.gate, d.gateErr = openGate(d.ns, cfg.Port, d.under)
	if err := d.setFilter(ctx, nil); err != nil {
		return nil, err
	}
	if _, err := removeLink(d.nl, cfg.Name); err != nil {
		return nil, err
	}
	if err := checkPort(cfg.Port); err != nil { // the removed device may have used the port
		return nil, err
	}
	return d, d.create()
}

// tosInherit is the TOS of a device that copies the DSCP of frames ("ip link add type vxlan tos inherit", ip-link(8)), for both
// families of the underlay. With any TOS the kernel sets ECN by itself (vxlan_xmit_one, ip_tunnel_ecn_encap).
const tosInherit = 1

// create makes the device and the socket for probes.
func (d *Device) create() error {
	mac := ProbeMAC(d.cfg.Self)
	link := &netlink.Vxlan{
		LinkAttrs:    netlink.NewLinkAttrs(),
		VxlanId:      int(d.cfg.VNI),
		VtepDevIndex: d.under, // routes lead through it alone, and the kernel deletes the device with it
		SrcAddr:      d.cfg.Local.AsSlice(),
		Port:         int(d.cfg.Port),
		PortLow:      firstSource,
		PortHigh:     LastPrivileged + 1, // excluded
		Learning:     true,
		Limit:        maxEntries,
	}
	if d.cfg.CopyDSCP {
		link.TOS = tosInherit
	}
	link.Name, link.MTU, link.HardwareAddr = d.cfg.Name, d.cfg.MTU, mac[:]
	if err := d.nl.LinkAdd(link); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = fmt.Errorf("%w: load the module (modprobe vxlan), or use --datapath userspace: %w", ErrNoVXLAN, err)
		}
		return fmt.Errorf("vxlan: make %s: %w", d.cfg.Name, err)
	}
	if err := d.nl.LinkSetAlias(link, alias); err != nil { // Close recognizes the device by it
		return errors.Join(fmt.Errorf("vxlan: mark %s: %w", d.cfg.Name, err), d.nl.LinkDel(link))
	}
	d.made = true
	made, err := d.nl.LinkByName(d.cfg.Name)
	if err != nil {
		return fmt.Errorf("vxlan: %s: %w", d.cfg.Name, err)
	}
	d.index = made.Attrs().Index
	if err := d.disableIPv6(made); err != nil {
		return fmt.Errorf("vxlan: %s: disable IPv6: %w", d.cfg.Name, err)
	}
	d.socket, err = openSocket(d.index, d.cfg.MTU)
	return err
}

// disableIPv6 prevents the kernel from assigning an address to the device, as its neighbor discovery would go to every
// peer: the address of the host in the overlay is on the bridge. If /proc/sys is read-only, as in many containers, the
// device only gets no link-local address, without which the kernel sends no solicitation.
func (d *Device) disableIPv6(link netlink.Link) error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+d.cfg.Name+"/disable_ipv6", []byte("1"), 0)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil // the kernel may have no IPv6
	}
	const addrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE, linux/if_link.h
	return d.nl.LinkSetIP6AddrGenMode(link, addrGenModeNone)
}

// VNI returns the device's VNI.
func (d *Device) VNI() uint32 { return d.cfg.VNI }

// Name returns the device's name.
func (d *Device) Name() string { return d.cfg.Name }

// MAC returns the hardware address of the device, to which peers send their probes.
func (d *Device) MAC() ether.Addr { return ProbeMAC(d.cfg.Self) }

// Sample reads the state of the device. The error wraps carrier.ErrGone if another program deleted the device.
func (d *Device) Sample() (carrier.Sample, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return carrier.Sample{}, net.ErrClosed
	}
	attrs, err := d.attrs()
	if err != nil {
		return carrier.Sample{}, err
	}
	s := carrier.Sample{Ready: attrs.MasterIndex != 0 && attrs.Flags&net.FlagUp != 0, BadProbes: d.socket.bad.Load()}
	if c := attrs.Statistics; c != nil {
		s.RxFrames, s.RxBytes, s.TxFrames, s.TxBytes = c.RxPackets, c.RxBytes, c.TxPackets, c.TxBytes
		s.TxDropped = c.TxDropped + c.TxErrors
	}
	s.Frames = s.RxFrames + s.TxFrames + s.TxDropped
	return s, nil
}

// attrs returns the kernel's attributes of the device. mu is held.
func (d *Device) attrs() (*netlink.LinkAttrs, error) {
	link, err := d.nl.LinkByIndex(d.index)
	if _, absent := errors.AsType[netlink.LinkNotFoundError](err); absent {
		return nil, fmt.Errorf("vxlan: %s: %w", d.cfg.Name, carrier.ErrGone)
	}
	if err != nil {
		return nil, fmt.Errorf("vxlan: %s: %w", d.cfg.Name, err)
	}
	return link.Attrs(), nil
}

// Send sends p to the device of p.To over the kernel path. The error wraps carrier.ErrUnknownPeer if the peer is not one of
// SetPeers, as the device would then flood the probe.
func (d *Device) Send(p carrier.Probe) error {
	d.mu.Lock()
	_, ok := d.peers[p.To]
	d.mu.Unlock()
	if !ok {
		return fmt.Errorf("vxlan: probe to %s: %w", p.To, carrier.ErrUnknownPeer)
	}
	return d.socket.send(p)
}

// Receive waits for a probe. One goroutine may call it. After Close the error is net.ErrClosed.
func (d *Device) Receive() (carrier.Probe, error) { return d.socket.receive() }

// Ensure restores the filter and the entries that are not learned, if another program removed them.
func (d *Device) Ensure(ctx context.Context) error {
	intact, err := d.FilterIntact()
	if err != nil {
		return err
	}
	if !intact {
		err = d.RestoreFilter(ctx)
	} else {
		d.filterMu.Lock()
		err = d.setGate() // the bridge may have been made again
		d.filterMu.Unlock()
	}
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return net.ErrClosed
	}
	return d.putEntries()
}

// Keep makes the following Close leave the device and the filter of nftables on the host, so that the kernel goes on carrying
// frames without a daemon, as after a crash. The next Open removes both.
func (d *Device) Keep() { d.kept.Store(true) }

// Close removes the device and the filter, unless Keep was called. Receive then returns net.ErrClosed. A second Close does
// nothing.
func (d *Device) Close() error {
	return errors.Join(d.closeDevice(), d.closeFilter()) // in this order: the device must never be without the filter
}

func (d *Device) closeDevice() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	var errs []error
	if d.socket != nil {
		errs = append(errs, d.socket.close())
	}
	if d.nl != nil {
		if d.made && !d.kept.Load() {
			_, err := removeLink(d.nl, d.cfg.Name)
			errs = append(errs, err)
		}
		d.nl.Close()
	}
	return errors.Join(errs...)
}
