package datapath

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"

	"weft/internal/health"
	"weft/internal/podlink"
	"weft/tap/bridge"
)

// mtuPeriod is how often the MTUs of pods are compared with that of the overlay: pods are attached with one that has just changed,
// or change theirs.
const mtuPeriod = 30 * time.Second

// minMTU6 is the smallest MTU of a link with IPv6, in bytes (RFC 8200, section 5).
const minMTU6 = 1280

// mtuState is what is known about the MTUs of this host.
type mtuState struct {
	// guarded by Datapath.hostMu
	applied   int  // the MTU that pods follow, in bytes; 0: not known
	regained6 bool // weft raised the MTU of a link to one with IPv6 since the reconciler's last look

	// atomic
	links atomic.Int64               // the largest MTU of a pod that is above that of the overlay, in bytes; 0: there is none
	large atomic.Pointer[[]largePod] // nil: none
}

// largePod is a pod that has a larger MTU than the overlay, and keeps it.
type largePod struct {
	port podlink.Port // with its addresses
	mtu  int          // bytes
	err  error        // why it keeps it
}

// linkMTU returns the MTU of bridge, TAP and VXLAN device in bytes. It is never below that of a pod: a bridge drops longer frames
// without a word, but router and kernel path answer them with ICMP messages.
// See docs/adr/0035-follow-the-underlay.md.
func (d *Datapath) linkMTU() int { return max(d.MTU(), int(d.mtus.links.Load())) }

// nextMTU returns the MTU of a pod that has one of has bytes, when that of the overlay changes from before to want: the overlay
// carries no more, and a pod that has less by its own configuration keeps that.
func nextMTU(has, before, want int) int {
	if has > want || has == before {
		return want
	}
	return has
}

// followMTU makes pods and links follow the MTU of the overlay until ctx ends.
func (d *Datapath) followMTU(ctx context.Context) {
	tick := time.NewTicker(mtuPeriod)
	defer tick.Stop()
	for {
		d.hostMu.Lock()
		err := d.fitMTU()
		d.hostMu.Unlock()
		if err != nil && ctx.Err() == nil { // else this node has closed its TAP
			d.log.Warn("cannot set the MTU of the pods", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-d.resize.C():
		}
	}
}

// fitMTU gives pods, bridge, TAP, VXLAN device and router the MTU of the overlay; hostMu is held. Links grow before pods, and
// shrink after them, so that no link is ever below a pod.
func (d *Datapath) fitMTU() error {
	e := d.current.Load()
	if d.cleared || e == nil {
		return nil
	}
	want := d.MTU()
	err := d.setLinks(func(has int) int { return max(has, want) })
	err = errors.Join(err, d.fitPods(want))
	for _, k := range e.kernel {
		if run := k.current.Load(); run != nil && run.fixedMTU != 0 && run.fixedMTU != d.linkMTU() {
			k.renew()
		}
	}
	return errors.Join(err, d.setLinks(func(int) int { return d.linkMTU() }), e.router.SetMTU(want))
}

// prepareMTU lowers the MTU of pods from an earlier run, before bridge and TAP get theirs; hostMu need not be held yet.
func (d *Datapath) prepareMTU(before bridge.Info) error {
	if before.State != bridge.Found {
		return nil
	}
	d.mtus.applied = before.MTU
	if d.MTU() > before.MTU {
		return nil // fitMTU raises it, after the links
	}
	return d.fitPods(d.MTU())
}

// fitPods gives pods the MTU want, and notes those that keep a larger one; hostMu is held.
func (d *Datapath) fitPods(want int) error {
	ports, err := podlink.Ports(d.settings.Bridge)
	if err != nil {
		return err
	}
	var changes []podlink.Resize
	for _, p := range ports {
		inner, err := p.PodMTU()
		if err != nil { // it was removed, or is in no pod
			inner = p.MTU
		}
		c := podlink.Resize{Port: p}
		if next := nextMTU(p.MTU, d.mtus.applied, want); next != p.MTU {
			c.Host = next
		}
		if next := nextMTU(inner, d.mtus.applied, want); next != inner {
			c.Pod = next
		}
		if c.Host != 0 || c.Pod != 0 {
			changes = append(changes, c)
		}
	}
	podlink.ResizeAll(changes)
	d.mtus.applied = want
	d.noteLarge(changes, want)
	return nil
}

// noteLarge records the pods that keep a larger MTU than want, and which MTU the links need for them.
func (d *Datapath) noteLarge(changes []podlink.Resize, want int) {
	var large []largePod
	resized, most := 0, 0
	for _, c := range changes {
		if c.Err == nil {
			resized++
		} else if mtu, err := c.Port.PodMTU(); err == nil && mtu > want && c.Port.Look() {
			large = append(large, largePod{c.Port, mtu, c.Err})
			most = max(most, mtu)
		}
	}
	if resized > 0 {
		d.log.Info("pods follow the MTU of the overlay", "mtu", want, "pods", resized)
	}
	slices.SortFunc(large, func(a, b largePod) int { return cmp.Compare(a.port.Name, b.port.Name) })
	d.mtus.large.Store(&large)
	d.mtus.links.Store(int64(most))
}

// setLinks sets the MTU of those of bridge, TAP and VXLAN device that exist; hostMu is held. next returns it for the present one.
func (d *Datapath) setLinks(next func(has int) int) error {
	var errs []error
	names := []string{d.settings.Bridge, d.settings.Tap}
	for _, run := range ports(d.kernelRuns()) {
		if run.fixedMTU == 0 {
			names = append(names, run.port.Names()...)
		}
	}
	for _, name := range names {
		link, err := netlink.LinkByName(name)
		if _, absent := errors.AsType[netlink.LinkNotFoundError](err); absent {
			continue // repaired with the right MTU
		}
		if err == nil {
			if has := link.Attrs().MTU; next(has) != has {
				err = netlink.LinkSetMTU(link, next(has))
				d.mtus.regained6 = d.mtus.regained6 || has < minMTU6 && next(has) >= minMTU6
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("datapath: MTU of %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// mtuFindings reports pods that have a larger MTU than the overlay.
func (d *Datapath) mtuFindings() []health.Finding {
	large := d.mtus.large.Load()
	if large == nil || len(*large) == 0 {
		return nil
	}
	var names []string
	for _, p := range *large {
		name := p.port.Name
		for _, a := range p.port.Addrs {
			name = a.String() + " on " + name
			break
		}
		names = append(names, fmt.Sprintf("%s (%d)", name, p.mtu))
	}
	return []health.Finding{{
		Code: health.PodMTULarge,
		Text: fmt.Sprintf("Pods have a larger MTU than the overlay, which carries packets of %d bytes: %s. Their longer packets are "+
			"answered with ICMP messages or fragmented, and groups do not receive them.", d.MTU(), health.List(names)),
		Remedy: "Restart these pods.",
	}}
}
