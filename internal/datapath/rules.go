package datapath

import (
	"context"
	"errors"
	"time"

	"weft/internal/api"
	"weft/internal/dockerfilter"
	"weft/internal/hairpin"
	"weft/internal/hoststate"
	"weft/internal/masq"
	"weft/internal/nftsum"
	"weft/internal/podlink"
	"weft/router/carrier"
)

// repairRules is the kind of a repair of nftables rules, beside the kinds of package hoststate.
const repairRules = "rules"

// hostRules are nftables rules of weft on this host. Methods are called by the reconciler's goroutine, under Datapath.hostMu.
type hostRules interface {
	// Name names the rules, as a part of a sentence.
	Name() string
	// Intact reports whether the rules are as Apply made them last. It is called after each change of any rule on the host, so it
	// must not start a program.
	Intact(ctx context.Context) (bool, error)
	// Apply makes the rules as they should be, whatever there is now.
	Apply(ctx context.Context) error
	// Postponed is called when the rules are not intact, and Apply is not called yet because another program keeps removing them.
	Postponed()
}

// ruleState are rules with what became of them.
type ruleState struct {
	hostRules
	applied bool // by this process, successfully
}

// hostRules returns the rules that the node keeps on the host, in the order in which they are restored.
func (d *Datapath) hostRules() (list []*ruleState) {
	for _, k := range carrierKinds {
		list = append(list, &ruleState{hostRules: kernelRules{d, k.kind}})
	}
	list = append(list, &ruleState{hostRules: d.ports})
	if d.settings.Guard != api.GuardOff {
		list = append(list, &ruleState{hostRules: guardRules{d.guards}})
	}
	if !d.settings.NoMasquerade {
		list = append(list, &ruleState{hostRules: &masqueradeRules{d: d}})
	}
	return append(list, &ruleState{hostRules: hairpin.NewKeeper(podlink.HostPrefix, d.log)}, &ruleState{hostRules: d.inward},
		&ruleState{hostRules: dockerfilter.NewKeeper(d.settings.Bridge, d.log)})
}

// lookAtRules restores rules that are not intact. A full look sets all rules again, whether they seem intact or not.
func (r *reconciler) lookAtRules(ctx context.Context, full bool) {
	r.d.hostMu.Lock()
	defer r.d.hostMu.Unlock()
	if r.d.cleared {
		return
	}
	for _, rules := range r.rules {
		r.restoreRules(ctx, rules, full)
	}
}

func (r *reconciler) restoreRules(ctx context.Context, rules *ruleState, full bool) {
	intact, err := rules.Intact(ctx)
	rules.applied = rules.applied || intact
	if intact && !full {
		return
	}
	lost := rules.applied && !intact && err == nil
	key, now := hoststate.Key{Kind: repairRules, Object: rules.Name()}, time.Now()
	if wait := r.pace.Wait(key, now); wait > 0 && !intact {
		rules.Postponed()
		r.postpone(wait)
		return
	}
	if !intact {
		r.pace.Repaired(key, now)
	}
	if err := rules.Apply(ctx); err != nil {
		r.pace.Failed(key)
		return
	}
	rules.applied = true
	if lost {
		r.d.repairs.Add(repairRules, rules.Name()+" were changed or removed", now)
		r.log.Log(ctx, r.level(key, now), "restored rules that another program changed on this host", "rules", rules.Name())
	}
}

// kernelRules are those of a carrier of the kernel. Without such a device there are none.
type kernelRules struct {
	d    *Datapath
	kind carrier.Kind
}

// run returns the device; nil: there is none now.
func (k kernelRules) run() *kernelRun {
	if e := k.d.current.Load(); e != nil {
		return e.kernel.path(k.kind).current.Load()
	}
	return nil
}

// Name implements hostRules.
func (k kernelRules) Name() string { return infoOf(k.kind).rules }

// Intact implements hostRules.
func (k kernelRules) Intact(context.Context) (bool, error) {
	run := k.run()
	if run == nil {
		return true, nil
	}
	return run.rules.FilterIntact()
}

// Apply implements hostRules.
func (k kernelRules) Apply(ctx context.Context) error {
	run := k.run()
	if run == nil {
		return nil
	}
	return run.rules.RestoreFilter(ctx)
}

// Postponed implements hostRules: without another filter the device must not carry frames.
func (k kernelRules) Postponed() {
	if run := k.run(); run != nil && run.port != nil {
		if err := run.port.Shut(); err != nil {
			k.d.log.Warn("cannot shut the kernel path, which has no filter", "err", err)
		}
	}
}

// masqueradeRules let pods reach addresses outside the overlay. Where they cannot be set the overlay itself works, and a condition
// says so.
type masqueradeRules struct {
	d    *Datapath
	nft  *masq.NFT    // nil: not opened yet
	sums []nftsum.Sum // of its tables, as they were set last
}

// Name implements hostRules.
func (*masqueradeRules) Name() string { return "the masquerading rules" }

// Intact implements hostRules.
func (m *masqueradeRules) Intact(context.Context) (bool, error) {
	if m.nft == nil || m.sums == nil {
		return false, nil
	}
	return m.nft.Intact(m.sums)
}

// Apply implements hostRules. It also lets the host forward packets.
func (m *masqueradeRules) Apply(ctx context.Context) error {
	s := m.d.settings
	err := errors.Join(m.apply(ctx), masq.EnableForwarding(s.HasIPv4(), s.HasIPv6()))
	old := m.d.rulesErr.Swap(&err)
	if err != nil && (old == nil || *old == nil) {
		m.d.log.Warn("pods cannot reach addresses outside the overlay", "err", err)
	}
	return err
}

func (m *masqueradeRules) apply(ctx context.Context) (err error) {
	if m.nft == nil {
		if m.nft, err = masq.New(ctx); err != nil {
			m.nft = nil
			return err
		}
	}
	ruleset := masq.Ruleset{Ranges: m.d.settings.Ranges, Bridge: m.d.settings.Bridge}
	if err := m.nft.Apply(ctx, ruleset); err != nil {
		m.nft, m.sums = nil, nil // the kernel may accept other rules now
		return err
	}
	m.sums, err = m.nft.Sums()
	return err
}

// Postponed implements hostRules.
func (*masqueradeRules) Postponed() {}

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
