package datapath

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"

	"weft/internal/masq"
	"weft/internal/netdump"
	"weft/internal/podlink"
	"weft/tap/bridge"
)

// How often the host is inspected: the bridge with a cheap look, the rules by applying them again, which changes nothing unless
// another program removed them.
const (
	bridgePeriod = 2 * time.Second
	rulesPeriod  = 30 * time.Second
)

// bridgeState is the result of the last repairs. All fields are atomic; the values that they point to are not changed.
type bridgeState struct {
	repairs  atomic.Pointer[repairs] // nil: nothing had to be repaired
	rulesErr atomic.Pointer[error]   // why the rules are not set; nil: not tried yet, pointer to nil: they are set
}

// repairs counts the repairs of the bridge.
type repairs struct {
	count int
	last  time.Time
	err   error // why the last one failed
}

// rulesTried reports whether the rules were set, or could not be.
func (s *bridgeState) rulesTried() bool { return s.rulesErr.Load() != nil }

// repair restores what other programs break, until ctx ends: a bridge that was deleted, a TAP that was taken off it, rules that
// were flushed.
func (d *Datapath) repair(ctx context.Context) {
	bridgeTick, rulesTick := time.NewTicker(bridgePeriod), time.NewTicker(rulesPeriod)
	defer bridgeTick.Stop()
	defer rulesTick.Stop()
	d.applyRules(ctx)
	d.observeAddresses()
	for {
		select {
		case <-ctx.Done():
			return
		case <-bridgeTick.C:
			d.checkBridge()
			d.observeAddresses()
		case <-rulesTick.C:
			d.applyRules(ctx)
		}
	}
}

// checkBridge repairs the bridge if it has to be repaired, and records the result.
func (d *Datapath) checkBridge() {
	needed, err := d.repairBridge()
	before := d.bridge.repairs.Load()
	if before == nil {
		before = &repairs{}
	}
	after := repairs{before.count, before.last, err}
	if needed && err == nil {
		after.count, after.last = before.count+1, time.Now()
	}
	if err != nil && before.err == nil { // log once, not every two seconds
		d.log.Warn("cannot repair the bridge", "err", err)
	}
	if needed || err != nil || before.err != nil {
		d.bridge.repairs.Store(&after)
	}
}

// repairBridge makes the bridge again if it is gone or has lost a port, with its addresses, the TAP and the pods on it. needed
// reports whether it had to.
func (d *Datapath) repairBridge() (needed bool, err error) {
	d.hostMu.Lock()
	defer d.hostMu.Unlock()
	if d.cleared {
		return false, nil
	}
	info, err := bridge.Inspect(d.settings.Bridge)
	if err != nil {
		return false, err
	}
	ports := []string{d.settings.Tap}
	if port := d.kernelPort(); port != "" {
		ports = append(ports, port)
	}
	lacks := func(port string) bool { return !slices.Contains(info.Ports, port) }
	if info.State == bridge.Found && !slices.ContainsFunc(ports, lacks) {
		return false, nil
	}
	d.log.Warn("restoring the bridge: it is gone or has lost a port", "bridge", d.settings.Bridge, "tap", d.settings.Tap)
	br, err := bridge.Ensure(d.bridgeConfig())
	if err != nil {
		return true, err
	}
	defer br.Close()
	for _, port := range ports {
		if err := br.AddPort(port); err != nil {
			if port == d.settings.Tap {
				return true, err
			}
			d.log.Warn("cannot put the kernel path back on the bridge", "err", err) // userspace works without it
		}
	}
	if err := plugPods(br.Index()); err != nil {
		return true, err
	}
	return true, d.restoreAddresses()
}

// plugPods makes the host ends of pods that are on no bridge ports of the bridge with the given index.
func plugPods(bridgeIndex int) error {
	return eachPodLink(0, func(l netlink.Link) error {
		return errors.Join(netlink.LinkSetMasterByIndex(l, bridgeIndex), netlink.LinkSetHairpin(l, true))
	})
}

// removePods deletes the pairs of the pods on the bridge with the given index.
func removePods(bridgeIndex int) error { return eachPodLink(bridgeIndex, netlink.LinkDel) }

// eachPodLink calls f for the host ends of pods that are ports of the bridge with the given index; 0: of no bridge.
func eachPodLink(bridgeIndex int, f func(netlink.Link) error) error {
	links, err := netdump.Repeat(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("datapath: listing links: %w", err)
	}
	var errs []error
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, podlink.HostPrefix) && l.Attrs().MasterIndex == bridgeIndex {
			errs = append(errs, f(l))
		}
	}
	return errors.Join(errs...)
}

// applyRules lets pods reach addresses outside the overlay. Where that fails the overlay itself works, and a condition says so.
func (d *Datapath) applyRules(ctx context.Context) {
	d.hostMu.Lock()
	defer d.hostMu.Unlock()
	if d.settings.NoMasquerade || d.cleared {
		return
	}
	err := errors.Join(d.masquerade(ctx), masq.EnableForwarding(d.settings.HasIPv4(), d.settings.HasIPv6()))
	old := d.bridge.rulesErr.Swap(&err)
	if err != nil && (old == nil || *old == nil) {
		d.log.Warn("pods cannot reach addresses outside the overlay", "err", err)
	}
}

func (d *Datapath) masquerade(ctx context.Context) error {
	fw, err := masq.New(ctx)
	if err != nil {
		return err
	}
	return fw.Apply(ctx, masq.Ruleset{Ranges: d.settings.Ranges, Bridge: d.settings.Bridge})
}

// removeRules removes the masquerading rules. A host without rules or without nftables is success.
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

// Clear removes pods, rules and bridge from the host, for a node that leaves: its addresses belong to other nodes from now on.
// Nothing is repaired afterwards. The addresses of the bridge are removed before.
func (d *Datapath) Clear(ctx context.Context) error {
	d.hostMu.Lock()
	defer d.hostMu.Unlock()
	d.cleared = true
	var errs []error
	if !d.settings.NoMasquerade {
		errs = append(errs, removeRules(ctx))
	}
	errs = append(errs, d.clearBridge())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("datapath: taking the host off the overlay: %w", err)
	}
	return nil
}

// clearBridge deletes the pods' pairs on the bridge, and the bridge itself if weft made it and it has no other ports.
func (d *Datapath) clearBridge() error {
	info, err := bridge.Inspect(d.settings.Bridge)
	if err != nil || info.State != bridge.Found {
		return err
	}
	err = removePods(info.Index)
	others := slices.DeleteFunc(info.Ports, func(port string) bool {
		return port == d.settings.Tap || port == d.kernelPort() || strings.HasPrefix(port, podlink.HostPrefix)
	})
	if info.Ours && len(others) == 0 {
		err = errors.Join(err, bridge.Remove(d.settings.Bridge))
	}
	return err
}
