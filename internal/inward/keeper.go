package inward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/health"
	"weft/internal/hostnet"
	"weft/internal/masq"
	"weft/internal/nftsum"
	"weft/tap/bridge"
)

// gatewayGrace is how long the flows of a gateway are remembered after it was seen last: a restart of either daemon must not break
// connections, and those of before the end of "weft expose --inward=keep" go on.
const gatewayGrace = 10 * time.Minute

// Modes is where the mode of this node is kept. Methods may be called from any goroutine and do not wait.
type Modes interface{ Inward() api.InwardMode }

// Nodes are the other nodes. Methods may be called from any goroutine, do not wait, and must not call the Keeper.
type Nodes interface {
	// Gateways returns the MACs of the nodes that keep the addresses of clients, this one not among them.
	Gateways() []ether.Addr
	// SetGateway publishes the MAC of this node as one of them; zero: it is none.
	SetGateway(ether.Addr)
}

// Config is what a Keeper is made of. All fields are required.
type Config struct {
	Ranges  []netip.Prefix
	Bridge  string
	Uplinks []string // see Ruleset
	Modes   Modes
	Nodes   Nodes
	Logger  *slog.Logger
}

// Keeper keeps the rules in force. Its methods may be called concurrently.
type Keeper struct {
	cfg Config // constant

	mu      sync.Mutex
	nft     *nft                     // guarded by mu; nil: not opened yet
	applied *Ruleset                 // guarded by mu; nil: none, or not known
	sums    []nftsum.Sum             // guarded by mu; of the tables of applied
	seen    map[ether.Addr]time.Time // guarded by mu; when each gateway was seen last; nil: those of an earlier run are not known yet
	err     error                    // guarded by mu; why the rules are not in force
	cleared bool                     // guarded by mu: the node has left
}

// New returns a Keeper that has changed nothing yet.
func New(cfg Config) *Keeper { return &Keeper{cfg: cfg} }

// Name names the rules, as a part of a sentence.
func (*Keeper) Name() string { return "the rules for packets from outside the overlay" }

// Intact reports whether the rules are as Apply made them last. It starts no program.
func (k *Keeper) Intact(context.Context) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.applied == nil {
		return k.cleared, nil
	}
	now, err := sums(*k.applied)
	if errors.Is(err, nftsum.ErrNoTable) {
		err = nil
	}
	intact := err == nil && slices.Equal(now, k.sums)
	if err == nil && !intact {
		k.applied = nil
	}
	return intact, err
}

// Postponed is called when the rules are not intact, and another program keeps removing them.
func (*Keeper) Postponed() {}

// Apply puts the rules for the present mode and nodes in force, and publishes whether this node is a gateway. It does nothing if they
// are, and does not look for changes by other programs: Intact does.
func (k *Keeper) Apply(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cleared {
		return nil
	}
	err := k.apply(ctx)
	if err != nil && k.err == nil {
		k.cfg.Logger.Warn("packets from outside the overlay are not answered by this node", "err", err)
	}
	k.err = err
	return err
}

// apply is Apply for callers that hold mu.
func (k *Keeper) apply(ctx context.Context) error {
	mode, needed := k.cfg.Modes.Inward(), len(k.cfg.Nodes.Gateways()) > 0
	needed = needed || mode != api.InwardOff
	rules := Ruleset{
		Ranges: k.cfg.Ranges, Bridge: k.cfg.Bridge, Uplinks: k.cfg.Uplinks, Masquerade: mode == api.InwardNAT, ShowsInput: showsInput(),
	}
	if k.nft == nil && !needed && absent() { // as on most nodes
		k.noRules(rules)
		return nil
	}
	info, err := bridge.Inspect(k.cfg.Bridge)
	if err == nil && info.State != bridge.Found {
		return k.err // it is about to be made again, and its rules stay meanwhile
	}
	rules.MAC = info.MAC
	if err == nil {
		err = k.open(ctx)
	}
	if err != nil {
		if !needed && errors.Is(err, ErrNoNFT) {
			k.noRules(rules) // without nft there were none
			return nil
		}
		return err
	}
	rules.Gateways = k.gateways(time.Now(), info.MAC)
	if k.applied == nil || !reflect.DeepEqual(*k.applied, rules) {
		if err := k.set(ctx, rules); err != nil {
			return err
		}
	}
	if mode == api.InwardOff {
		k.cfg.Nodes.SetGateway(ether.Addr{})
		return nil
	}
	if err := masq.EnableForwarding(k.has(true), k.has(false)); err != nil {
		return err
	}
	if mode == api.InwardKeep {
		k.cfg.Nodes.SetGateway(info.MAC)
	} else {
		k.cfg.Nodes.SetGateway(ether.Addr{})
	}
	return nil
}

// showsInput reports whether the running kernel shows the input interface of packets that are forwarded when they leave (5.7, commit
// 28f8bfd1ac94).
func showsInput() bool {
	var major, minor int
	if _, err := fmt.Sscanf(hostnet.KernelRelease(), "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 5 || major == 5 && minor >= 7
}

// noRules records that there are none, which are those of r.
func (k *Keeper) noRules(r Ruleset) {
	k.applied, k.sums = &r, nil
	k.cfg.Nodes.SetGateway(ether.Addr{})
}

// set makes the rules those of r.
func (k *Keeper) set(ctx context.Context, r Ruleset) (err error) {
	k.applied = nil
	if err := k.nft.apply(ctx, r); err != nil {
		return err
	}
	if k.sums, err = sums(r); err == nil {
		k.applied = &r
	}
	return err
}

// open opens nft, and finds the gateways of an earlier run.
func (k *Keeper) open(ctx context.Context) (err error) {
	if k.nft == nil {
		if k.nft, err = newNFT(); err != nil {
			return err
		}
	}
	if k.seen != nil {
		return nil
	}
	known, err := k.nft.gateways(ctx)
	if err != nil {
		return err
	}
	k.seen = map[ether.Addr]time.Time{}
	for _, g := range known {
		k.seen[g] = time.Now()
	}
	return nil
}

// gateways returns those of now and of a moment ago, less this node itself.
func (k *Keeper) gateways(now time.Time, own ether.Addr) (list []ether.Addr) {
	for _, g := range k.cfg.Nodes.Gateways() {
		if !g.IsZero() && !g.IsMulticast() && g != own {
			k.seen[g] = now
		}
	}
	for g, at := range k.seen {
		if now.Sub(at) > gatewayGrace {
			delete(k.seen, g)
			continue
		}
		list = append(list, g)
	}
	slices.SortFunc(list, func(a, b ether.Addr) int { return slices.Compare(a[:], b[:]) })
	return list
}

// has reports whether the overlay has addresses of a family.
func (k *Keeper) has(v4 bool) bool {
	return slices.ContainsFunc(k.cfg.Ranges, func(p netip.Prefix) bool { return p.Addr().Is4() == v4 })
}

// Remove removes the rules for good. A host without rules or without nftables is success.
func (k *Keeper) Remove(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cleared, k.applied = true, nil
	if k.nft == nil {
		n, err := newNFT()
		if errors.Is(err, ErrNoNFT) {
			return nil
		}
		k.nft = n
	}
	return k.nft.remove(ctx)
}

// Findings reports that the rules are not in force.
func (k *Keeper) Findings() []health.Finding {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		return nil
	}
	return []health.Finding{{
		Code: health.InwardFailed, Text: fmt.Sprintf("Answers to clients outside of the overlay take another way, and do not arrive: %v.", k.err),
		Remedy: "Install the nftables package, or run \"weft expose --inward=off\".",
	}}
}
