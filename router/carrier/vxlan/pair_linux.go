package vxlan

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/carrier"
)

// MaxPairs bounds the pairs of a node, as each has a port of the bridge, to which the bridge copies broadcasts.
const MaxPairs = 128

// pair is a device for one peer, which the common device does not reach: an address translator or the family of the underlay is in the way.
// It has a VNI of its own, sends from the port of the common device to the port from which the peer is heard, and learns nothing: the
// kernel learns addresses without ports (vxlan_snoop), and there is one peer alone. The bridge learns what is behind it. See
// docs/adr/0055-pairs.md.
type pair struct {
	peer   carrier.Peer
	name   string
	index  int
	socket *socket
	remote netip.AddrPort // where the peer is reached; not valid before it was heard
	moved  time.Time      // when remote was last changed
	moves  int            // how often
	ready  atomic.Bool    // the device is a port of the bridge, and up
	answer time.Time      // until then the peer may carry frames here, as this node has answered it
}

// answered is how long after a probe was answered the peer may begin to carry frames, and so need answers to them. This node may not carry
// any yet: broadcasts go to the peer twice meanwhile.
const answered = 2 * time.Second

// begins reports whether this node is the one that begins.
func (p *pair) begins() bool { return p.peer.Pair.Port != 0 }

// pairName returns the name of the nth device of a pair.
func pairName(device string, n int) string { return fmt.Sprint(device, pairMark, n) }

// admissiblePairs returns those of peers that have a pair and a device of their own, and can be distinguished, those that have a device
// already first. shared are those that the common device reaches.
func (d *Device) admissiblePairs(peers, shared []carrier.Peer) (pairs []carrier.Peer) {
	if d.hellos == nil {
		return nil
	}
	macs := map[ether.Addr]bool{ProbeMAC(d.cfg.Self): true}
	for _, p := range shared {
		macs[ProbeMAC(p.ID)] = true
	}
	vnis := map[uint32]bool{0: true, d.cfg.VNI: true}
	for _, p := range d.oldestPairs(peers) {
		p.Addr = p.Addr.Unmap()
		mac := ProbeMAC(p.ID)
		if p.Pair == (carrier.Pair{}) || p.ID.IsZero() || !Usable(p.Addr) || macs[mac] || vnis[p.Pair.VNI] || p.Pair.VNI > MaxVNI {
			continue
		}
		macs[mac], vnis[p.Pair.VNI] = true, true
		if pairs = append(pairs, p); len(pairs) == MaxPairs {
			break
		}
	}
	return pairs
}

// oldestPairs returns peers sorted by ID, those first that have a device.
func (d *Device) oldestPairs(peers []carrier.Peer) []carrier.Peer {
	d.mu.Lock()
	defer d.mu.Unlock()
	rank := func(p carrier.Peer) int {
		if d.pairs[p.ID] != nil {
			return 0
		}
		return 1
	}
	return slices.SortedFunc(slices.Values(peers), func(a, b carrier.Peer) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.ID.Compare(b.ID))
	})
}

// pairSenders returns from where the peers of pairs may send, and from where they may begin. mu is held.
func (d *Device) pairSenders(peers []carrier.Peer) (known []netip.AddrPort, expected []netip.Addr) {
	for _, p := range peers {
		switch before := d.pairs[p.ID]; {
		case p.Pair.Port != 0:
			known = append(known, netip.AddrPortFrom(p.Addr, p.Pair.Port))
			continue
		case before != nil && before.peer == p && before.remote.IsValid():
			known = append(known, before.remote)
		}
		expected = append(expected, p.Addr)
	}
	slices.SortFunc(known, func(a, b netip.AddrPort) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Port(), b.Port()))
	})
	slices.SortFunc(expected, netip.Addr.Compare)
	return slices.Compact(known), slices.Compact(expected)
}

// setPairs makes devices for those of peers that have none, and removes those of others. It returns the peers with a device. No lock is
// held: the devices become ports of the bridge, of which other goroutines have locks while they need those of the Device.
func (d *Device) setPairs(peers []carrier.Peer) (reachable []carrier.Peer, err error) {
	made, err := d.makePairs(peers)
	for _, p := range made {
		if attachErr := d.cfg.Ports.AddPort(p.name); attachErr != nil {
			d.log.Warn("a pair of nodes has no port of the bridge: its frames go through userspace", "peer", p.peer.ID, "err", attachErr)
			err = errors.Join(err, d.removePair(p))
			continue
		}
		p.ready.Store(true)
	}
	if len(made) > 0 {
		err = errors.Join(err, d.keepShut())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range peers {
		if got := d.pairs[p.ID]; got != nil && got.peer == p {
			reachable = append(reachable, p)
		}
	}
	return reachable, err
}

// makePairs removes the devices of pairs that are not among peers any more, and makes those that are missing, which are down.
func (d *Device) makePairs(peers []carrier.Peer) (made []*pair, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, net.ErrClosed
	}
	d.again = false
	changed := false
	for id, p := range d.pairs {
		if !slices.Contains(peers, p.peer) {
			changed = true
			delete(d.pairs, id)
			delete(d.carried, id)
			err = errors.Join(err, d.deletePair(p))
		}
	}
	maps.DeleteFunc(d.pairErrs, func(id peer.ID, _ string) bool {
		return !slices.ContainsFunc(peers, func(p carrier.Peer) bool { return p.ID == id })
	})
	for _, p := range peers {
		if d.pairs[p.ID] != nil {
			continue
		}
		added, makeErr := d.makePair(p)
		if makeErr != nil {
			if text := makeErr.Error(); d.pairErrs[p.ID] != text {
				d.pairErrs[p.ID] = text
				d.log.Warn("cannot make the device of a pair of nodes: its frames go through userspace", "peer", p.ID, "err", makeErr)
			}
			d.again = true
			continue
		}
		delete(d.pairErrs, p.ID)
		d.pairs[p.ID] = added
		made = append(made, added)
	}
	if changed || len(made) > 0 {
		d.linksChanged()
	}
	return made, err
}

// makePair makes the device for a peer. mu is held.
func (d *Device) makePair(p carrier.Peer) (*pair, error) {
	made := &pair{peer: p}
	var names []string
	for _, other := range d.pairs {
		names = append(names, other.name)
	}
	err := ErrNotOurs
	for n := 0; n < 2*MaxPairs && errors.Is(err, ErrNotOurs); n++ { // another program may have devices of these names
		if made.name = pairName(d.cfg.Name, n); !slices.Contains(names, made.name) {
			made.index, made.socket, err = d.createPair(made)
		}
	}
	if err != nil {
		return nil, err
	}
	if made.begins() {
		made.remote = netip.AddrPortFrom(p.Addr, p.Pair.Port)
		made.socket.token = p.Pair.Token
	}
	d.pump(made.socket, func(from peer.ID) bool { return from == p.ID && made.ready.Load() })
	if err := d.putPair(made); err != nil {
		return nil, errors.Join(err, d.deletePair(made))
	}
	return made, nil
}

// createPair creates the link of a pair, and its socket for probes. What an earlier run has left is replaced.
func (d *Device) createPair(p *pair) (index int, s *socket, err error) {
	if _, err := removeLink(d.nl, p.name); err != nil {
		return 0, nil, err
	}
	link := d.newLink(p.name, p.peer.Pair.VNI)
	if common, err := d.attrs(); err == nil {
		link.MTU = common.MTU // which follows that of the overlay
	}
	link.SrcAddr = d.source(p.peer.Addr.Is4()).AsSlice()
	link.Learning, link.PortLow, link.PortHigh = false, int(d.cfg.Port), int(d.cfg.Port)+1 // the end is excluded
	err = d.inside(func() (err error) {
		index, s, err = d.addLink(link)
		return err
	})
	return index, s, err
}

// deletePair deletes the link of a pair, by whatever name. mu is held.
func (d *Device) deletePair(p *pair) error {
	err := p.socket.close()
	link, findErr := d.nl.LinkByIndex(p.index)
	if _, absent := errors.AsType[netlink.LinkNotFoundError](findErr); absent {
		return err
	}
	if findErr != nil {
		return errors.Join(err, fmt.Errorf("vxlan: %s: %w", p.name, findErr))
	}
	d.gone.add(link.Attrs())
	if delErr := d.nl.LinkDel(link); delErr != nil {
		err = errors.Join(err, fmt.Errorf("vxlan: delete %s: %w", p.name, delErr))
	}
	return err
}

// removePair ends a pair that is set up.
func (d *Device) removePair(p *pair) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pairs[p.peer.ID] != p {
		return nil
	}
	delete(d.pairs, p.peer.ID)
	delete(d.carried, p.peer.ID)
	d.again = true
	d.linksChanged()
	return d.deletePair(p)
}

// lostPairs forgets the pairs with devices that another program has deleted. It reports whether there are some, or others that could not be
// made, since the last SetPeers. mu is held.
func (d *Device) lostPairs() bool {
	lost := false
	for id, p := range d.pairs {
		_, err := d.nl.LinkByIndex(p.index)
		if _, absent := errors.AsType[netlink.LinkNotFoundError](err); absent {
			lost = true
			delete(d.pairs, id) // still carried: makePair adds the entry for floods again
			_ = p.socket.close()
		}
	}
	if lost {
		d.again = true
		d.linksChanged()
	}
	return d.again
}

// putPair adds the entries of a pair, if they are missing. mu is held.
func (d *Device) putPair(p *pair) error {
	if !p.remote.IsValid() {
		return nil
	}
	err := d.change(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, p, ProbeMAC(p.peer.ID))
	if d.carried[p.peer.ID] || time.Now().Before(p.answer) {
		err = errors.Join(err, d.change(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_APPEND, p, ether.Addr{}))
	}
	if err != nil {
		return fmt.Errorf("vxlan: entries of %s: %w", p.name, err)
	}
	return nil
}

// carryPair is Carry for a pair. mu is held.
func (d *Device) carryPair(p *pair, on bool, macs []ether.Addr) error {
	if !on {
		delete(d.carried, p.peer.ID)
		return d.purgePair(p)
	}
	if !p.remote.IsValid() {
		return fmt.Errorf("vxlan: %s has not been heard", p.peer.ID)
	}
	first := !d.carried[p.peer.ID]
	d.carried[p.peer.ID] = true
	if err := d.putPair(p); err != nil {
		return err
	}
	tap := d.tapIndex()
	if err := d.moveToPair(p, macs, tap); err != nil || !first {
		return err
	}
	return d.forgetTap(tap)
}

// moveToPair moves the entries of the bridge for macs from the TAP to the device.
func (d *Device) moveToPair(p *pair, macs []ether.Addr, tap int) error {
	if len(macs) == 0 {
		return nil
	}
	tables, err := d.dump()
	if err != nil {
		return err
	}
	var errs []error
	for _, mac := range macs {
		if d.isProbeMAC(mac) {
			continue
		}
		for _, at := range tables.bridge[mac] {
			if at.LinkIndex == tap {
				errs = append(errs, d.movePort(mac, at.Vlan, tap, p.index))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("vxlan: move the addresses behind %s: %w", p.remote, err)
	}
	return nil
}

// answering notes that this node has accepted frames of the peer, which needs answers as soon as it carries them. mu is held.
func (d *Device) answering(p *pair) {
	before := time.Now().Before(p.answer)
	p.answer = time.Now().Add(answered)
	if !before && !d.carried[p.peer.ID] {
		if err := d.putPair(p); err != nil {
			d.log.Debug("cannot answer the peer of a pair", "peer", p.peer.ID, "err", err)
		}
	}
}

// unanswering removes the entries of peers that have not begun to carry frames here. mu is held.
func (d *Device) unanswering() {
	for id, p := range d.pairs {
		if !p.answer.IsZero() && time.Now().After(p.answer) {
			if p.answer = (time.Time{}); !d.carried[id] {
				_ = d.purgePair(p) // the device may be gone
			}
		}
	}
}

// purgePair removes what the bridge has learned from the device, and the entry for floods. mu is held.
func (d *Device) purgePair(p *pair) error {
	tables, err := d.dump()
	if err != nil {
		return err
	}
	var errs []error
	for mac, seen := range tables.bridge {
		errs = append(errs, d.forgetAt(mac, seen, func(index int) bool { return index == p.index }))
	}
	p.answer = time.Time{}
	if p.remote.IsValid() {
		errs = append(errs, ignore(d.change(unix.RTM_DELNEIGH, 0, p, ether.Addr{}), unix.ENOENT))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("vxlan: remove the addresses behind %s: %w", p.remote, err)
	}
	return nil
}

// change adds or deletes the entry of a pair's device for mac: frames to it go to the remote address and port. The library has no entries
// with ports.
func (d *Device) change(message, flags int, p *pair, mac ether.Addr) error {
	return d.inside(func() error {
		r := nl.NewNetlinkRequest(message, flags|unix.NLM_F_ACK)
		r.AddData(&netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: uint32(p.index), State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF})
		r.AddData(nl.NewRtAttr(netlink.NDA_LLADDR, mac[:]))
		r.AddData(nl.NewRtAttr(netlink.NDA_DST, p.remote.Addr().AsSlice()))
		r.AddData(nl.NewRtAttr(netlink.NDA_PORT, []byte{byte(p.remote.Port() >> 8), byte(p.remote.Port())}))
		_, err := r.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
}
