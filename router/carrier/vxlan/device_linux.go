package vxlan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/nflog"
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
	cfg     Config
	log     *slog.Logger
	under   int // index of the tunnel below the device; 0: there is none
	index   int
	socket  *socket
	hellos  *nflog.Conn        // nil: there are no pairs
	probes  chan carrier.Probe // received
	failed  chan error         // holds the one that ends receiving
	done    chan struct{}      // closed by Close
	running sync.WaitGroup     // what reads probes and hellos

	// Guarded by filterMu, as a change of the filter takes milliseconds. filter is nil after Close.
	filterMu  sync.Mutex
	ns        netns.NsHandle
	filter    *filter
	filterSum nftsum.Sum // of the filter's table as it was set last
	gate      *gate      // nil: the kernel or the privileges of this process do not allow it
	gateErr   error      // why there is none
	shut      bool       // the device has to be down: nothing filters its senders
	allowed   senders
	pairPeers []carrier.Peer // those of the last SetPeers that may have a pair

	// Guarded by mu.
	mu       sync.Mutex
	nl       *netlink.Handle
	peers    map[peer.ID]netip.Addr
	byAddr   map[netip.Addr]peer.ID
	carried  map[peer.ID]bool
	pairs    map[peer.ID]*pair  // none of them is in peers
	again    bool               // a pair has no device: SetPeers has to be called again
	pairErrs map[peer.ID]string // why, as it was last logged
	gone     traffic            // of pairs that have ended
	changed  chan struct{}      // closed, and made anew, when there are other devices of pairs
	made     bool
	closed   bool

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
		cfg: cfg, log: cfg.Logger, ns: netns.None(), probes: make(chan carrier.Probe), failed: make(chan error, 1), done: make(chan struct{}),
		peers: map[peer.ID]netip.Addr{}, byAddr: map[netip.Addr]peer.ID{}, carried: map[peer.ID]bool{},
		pairs: map[peer.ID]*pair{}, pairErrs: map[peer.ID]string{}, changed: make(chan struct{}),
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
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
	d.openHellos()
	if err := d.setFilter(ctx, senders{}); err != nil {
		return nil, err
	}
	if _, err := removeLinks(d.nl, cfg.Name); err != nil {
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
func (d *Device) create() (err error) {
	link := d.newLink(d.cfg.Name, d.cfg.VNI)
	link.SrcAddr = d.source(d.cfg.Local.Is4()).AsSlice()
	if d.index, d.socket, err = d.addLink(link); err != nil {
		return err
	}
	d.made = true
	d.pump(d.socket, func(peer.ID) bool { return true })
	return nil
}

// source returns the source address of datagrams of a family; the unspecified one leaves it to the routes.
func (d *Device) source(is4 bool) netip.Addr {
	switch {
	case is4 == d.cfg.Local.Is4() && !d.cfg.Translated:
		return d.cfg.Local
	case is4:
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// newLink describes a VXLAN device.
func (d *Device) newLink(name string, vni uint32) *netlink.Vxlan {
	mac := ProbeMAC(d.cfg.Self)
	link := &netlink.Vxlan{
		LinkAttrs:    netlink.NewLinkAttrs(),
		VxlanId:      int(vni),
		VtepDevIndex: d.under, // routes lead through it alone, and the kernel deletes the device with it
		Port:         int(d.cfg.Port),
		PortLow:      firstSource,
		PortHigh:     LastPrivileged + 1, // excluded
		Learning:     true,
		Limit:        maxEntries,
	}
	if d.cfg.CopyDSCP {
		link.TOS = tosInherit
	}
	link.Name, link.MTU, link.HardwareAddr = name, d.cfg.MTU, mac[:]
	return link
}

// addLink makes a VXLAN device, which is down, and the socket for probes on it. On an error nothing is left behind.
func (d *Device) addLink(link *netlink.Vxlan) (index int, s *socket, err error) {
	if err := d.nl.LinkAdd(link); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = fmt.Errorf("%w: load the module (modprobe vxlan), or use --datapath userspace: %w", ErrNoVXLAN, err)
		}
		return 0, nil, fmt.Errorf("vxlan: make %s: %w", link.Name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.nl.LinkDel(link))
		}
	}()
	if err := d.nl.LinkSetAlias(link, alias); err != nil { // Close recognizes the device by it
		return 0, nil, fmt.Errorf("vxlan: mark %s: %w", link.Name, err)
	}
	made, err := d.nl.LinkByName(link.Name)
	if err != nil {
		return 0, nil, fmt.Errorf("vxlan: %s: %w", link.Name, err)
	}
	if err := d.disableIPv6(made); err != nil {
		return 0, nil, fmt.Errorf("vxlan: %s: disable IPv6: %w", link.Name, err)
	}
	s, err = openSocket(made.Attrs().Index, d.cfg.MTU)
	return made.Attrs().Index, s, err
}

// disableIPv6 prevents the kernel from assigning an address to the device, as its neighbor discovery would go to every
// peer: the address of the host in the overlay is on the bridge. If /proc/sys is read-only, as in many containers, the
// device only gets no link-local address, without which the kernel sends no solicitation.
func (d *Device) disableIPv6(link netlink.Link) error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+link.Attrs().Name+"/disable_ipv6", []byte("1"), 0)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil // the kernel may have no IPv6
	}
	const addrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE, linux/if_link.h
	return d.nl.LinkSetIP6AddrGenMode(link, addrGenModeNone)
}

// VNI returns the device's VNI.
func (d *Device) VNI() uint32 { return d.cfg.VNI }

// Name returns the name of the common device.
func (d *Device) Name() string { return d.cfg.Name }

// Names returns the names of all devices: the common one, and those of pairs. They are ports of the bridge.
func (d *Device) Names() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := []string{d.cfg.Name}
	for _, p := range d.pairs {
		names = append(names, p.name)
	}
	slices.Sort(names[1:])
	return names
}

// MAC returns the hardware address of the devices, to which peers send their probes.
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
	d.unanswering()
	total := d.gone
	total.add(attrs)
	d.socket.size.Store(int64(attrs.MTU))
	bad := d.socket.bad.Load()
	for _, p := range d.pairs {
		bad += p.socket.bad.Load()
		link, err := d.nl.LinkByIndex(p.index)
		if err != nil {
			p.ready.Store(false) // Ensure makes it again
			continue
		}
		total.add(link.Attrs())
		p.socket.size.Store(int64(link.Attrs().MTU))
		p.ready.Store(link.Attrs().MasterIndex == attrs.MasterIndex && link.Attrs().Flags&net.FlagUp != 0)
	}
	return carrier.Sample{
		Ready: attrs.MasterIndex != 0 && attrs.Flags&net.FlagUp != 0, BadProbes: bad,
		RxFrames: total.RxFrames, RxBytes: total.RxBytes, TxFrames: total.TxFrames, TxBytes: total.TxBytes, TxDropped: total.dropped,
		Frames: total.RxFrames + total.TxFrames + total.dropped,
	}, nil
}

// traffic is what devices have carried.
type traffic struct {
	carrier.Counts
	dropped uint64
}

// add adds what a device has carried.
func (t *traffic) add(attrs *netlink.LinkAttrs) {
	if s := attrs.Statistics; s != nil {
		t.RxFrames, t.RxBytes = t.RxFrames+s.RxPackets, t.RxBytes+s.RxBytes
		t.TxFrames, t.TxBytes = t.TxFrames+s.TxPackets, t.TxBytes+s.TxBytes
		t.dropped += s.TxDropped + s.TxErrors
	}
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
	pair := d.pairs[p.To]
	if pair != nil && p.Reply && p.Willing {
		d.answering(pair)
	}
	d.mu.Unlock()
	switch {
	case pair != nil && !pair.ready.Load():
		return fmt.Errorf("vxlan: probe to %s: %s is no port of the bridge", p.To, pair.name)
	case pair != nil:
		return pair.socket.send(p)
	case !ok:
		return fmt.Errorf("vxlan: probe to %s: %w", p.To, carrier.ErrUnknownPeer)
	}
	return d.socket.send(p)
}

// Receive waits for a probe. One goroutine may call it. After Close the error is net.ErrClosed.
func (d *Device) Receive() (carrier.Probe, error) {
	select {
	case <-d.done:
		return carrier.Probe{}, net.ErrClosed
	default:
	}
	select {
	case p := <-d.probes:
		return p, nil
	case err := <-d.failed:
		return carrier.Probe{}, err
	case <-d.done:
		return carrier.Probe{}, net.ErrClosed
	}
}

// pump passes on the probes of a socket until it is closed. Those that claim another sender than the device can have are dropped.
func (d *Device) pump(s *socket, mayBe func(from peer.ID) bool) {
	d.running.Go(func() {
		for {
			p, err := s.receive()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) && s == d.socket {
					d.failed <- err
				}
				return
			}
			if !mayBe(p.From) {
				s.bad.Add(1)
				continue
			}
			select {
			case d.probes <- p:
			case <-d.done:
				return
			}
		}
	})
}

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
	if d.lostPairs() {
		err = fmt.Errorf("vxlan: another program has deleted the device of a pair: %w", carrier.ErrPeers)
	}
	return errors.Join(d.putEntries(), err)
}

// Keep makes the following Close leave the device and the filter of nftables on the host, so that the kernel goes on carrying
// frames without a daemon, as after a crash. The next Open removes both.
func (d *Device) Keep() { d.kept.Store(true) }

// Close removes the device and the filter, unless Keep was called. Receive then returns net.ErrClosed. A second Close does
// nothing.
func (d *Device) Close() error {
	err := errors.Join(d.closeDevice(), d.closeFilter()) // in this order: the device must never be without the filter
	d.running.Wait()
	return err
}

func (d *Device) closeDevice() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	close(d.done)
	var errs []error
	if d.hellos != nil {
		errs = append(errs, d.hellos.Close())
	}
	for _, p := range d.pairs {
		errs = append(errs, p.socket.close())
		if !d.kept.Load() {
			_, err := removeLink(d.nl, p.name)
			errs = append(errs, err)
		}
	}
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
