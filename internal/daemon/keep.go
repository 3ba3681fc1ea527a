package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"weft/internal/masq"
	"weft/internal/podlink"
	"weft/tap/bridge"
)

// How often the data plane looks after itself: the bridge, by a cheap look, and the rules, by applying them again, which
// changes nothing where nobody has flushed them.
const (
	bridgeEvery = 2 * time.Second
	rulesEvery  = 30 * time.Second
)

// keep mends what others break: a bridge that somebody deleted, a TAP that was taken off it, rules that were flushed.
// It runs until ctx ends.
func (p *plane) keep(ctx context.Context) error {
	bridgeTick, rulesTick := time.NewTicker(bridgeEvery), time.NewTicker(rulesEvery)
	defer bridgeTick.Stop()
	defer rulesTick.Stop()
	p.applyRules(ctx)
	p.serveNames()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-bridgeTick.C:
			p.lookAfterBridge()
			p.serveNames()
		case <-rulesTick.C:
			p.applyRules(ctx)
		}
	}
}

// mended is how often the bridge had to be mended, when last, and why it could not be.
type mended struct {
	count int
	last  time.Time
	err   error
}

// lookAfterBridge mends the bridge where it has to be, and takes down what it did.
func (p *plane) lookAfterBridge() {
	needed, err := p.keepBridge()
	before := p.mended.Load()
	if before == nil {
		before = &mended{}
	}
	after := mended{before.count, before.last, err}
	if needed && err == nil {
		after.count, after.last = before.count+1, time.Now()
	}
	if err != nil && before.err == nil { // once, not every two seconds
		p.d.log.Warn("mending the bridge", "err", err)
	}
	if needed || err != nil || before.err != nil {
		p.mended.Store(&after)
	}
}

// keepBridge makes the bridge again where it is gone, with its addresses, the TAP and the pods on it, and reports whether it had to.
func (p *plane) keepBridge() (needed bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cleared {
		return false, nil
	}
	info, err := bridge.Inspect(p.d.cfg.Bridge)
	if err != nil {
		return false, err
	}
	kernel := p.kernel.port()
	if info.State == bridge.Found && slices.Contains(info.Ports, p.d.cfg.Tap) && (kernel == "" || slices.Contains(info.Ports, kernel)) {
		return false, nil
	}
	return true, p.mendBridge(kernel)
}

// mendBridge is keepBridge's work; mu is held. kernel is the other port that the bridge has to have, or nothing.
func (p *plane) mendBridge(kernel string) error {
	p.d.log.Warn("the bridge is gone or the TAP is off it: making it good", "bridge", p.d.cfg.Bridge, "tap", p.d.cfg.Tap)
	br, err := bridge.Ensure(p.d.bridgeConfig())
	if err != nil {
		return err
	}
	defer br.Close()
	if err := br.AddPort(p.d.cfg.Tap); err != nil {
		return err
	}
	if kernel != "" {
		if err := br.AddPort(kernel); err != nil { // userspace carries on without it
			p.d.log.Warn("putting the kernel path back on the bridge", "err", err)
		}
	}
	if err := replug(br.Index()); err != nil {
		return err
	}
	return p.restoreExposed()
}

// rulesTried reports whether the rules have been set, or could not be.
func (p *plane) rulesTried() bool { return p.d.cfg.NoMasquerade || p.rulesErr.Load() != nil }

// replug makes the host ends of pods that are on no bridge ports of the one with the given index.
func replug(bridgeIndex int) error {
	return eachPodLink(0, func(l netlink.Link) error {
		return errors.Join(netlink.LinkSetMasterByIndex(l, bridgeIndex), netlink.LinkSetHairpin(l, true))
	})
}

// unplug deletes the pairs of the pods on the bridge with the given index.
func unplug(bridgeIndex int) error { return eachPodLink(bridgeIndex, netlink.LinkDel) }

// eachPodLink calls f for the host ends of pods that are ports of the bridge with the given index, of none for 0.
func eachPodLink(bridgeIndex int, f func(netlink.Link) error) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("daemon: listing links: %w", err)
	}
	var errs []error
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, podlink.HostPrefix) && l.Attrs().MasterIndex == bridgeIndex {
			errs = append(errs, f(l))
		}
	}
	return errors.Join(errs...)
}

// applyRules lets pods reach what is outside of the overlay. Where that cannot be, the overlay itself works all the same:
// the status warns.
func (p *plane) applyRules(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.d.cfg.NoMasquerade || p.cleared {
		return
	}
	var v4, v6 bool
	for _, r := range p.d.cfg.Ranges {
		v4, v6 = v4 || r.Addr().Is4(), v6 || r.Addr().Is6()
	}
	err := errors.Join(p.masquerade(ctx), masq.EnableForwarding(v4, v6))
	old := p.rulesErr.Swap(&err)
	if err != nil && (old == nil || *old == nil) {
		p.d.log.Warn("pods will not reach beyond the overlay", "err", err)
	}
}

func (p *plane) masquerade(ctx context.Context) error {
	fw, err := masq.New(ctx)
	if err != nil {
		return err
	}
	return fw.Apply(ctx, masq.Ruleset{Ranges: p.d.cfg.Ranges, Bridge: p.d.cfg.Bridge})
}

// removeRules takes the masquerading rules away; that there are none, or no nftables, is fine.
func removeRules(ctx context.Context) error {
	fw, err := masq.New(ctx)
	if errors.Is(err, masq.ErrNoNFT) {
		return nil
	}
	if err != nil {
		return err
	}
	return fw.Remove(ctx)
}
