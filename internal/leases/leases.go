// Package leases manages what addresses of this node are leased for: it joins namespaces to the overlay, exposes the host,
// and ends leases of holders that are gone. The allocator (package ipam) decides which addresses those are; the bridge belongs
// to the datapath.
//
// join.go, attach.go and expose.go serve requests; garbage.go ends the leases of attachments that vanished; orphans.go
// protects the addresses of pods that lost their leases; gateways.go looks after the gateways of running pods, names.go after names
// without a lease, and pairnames.go after names of pods that are gone; guard.go and running.go say what pods may send; probes.go
// leases the addresses of direct routing.
package leases

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/api"
	"weft/internal/exposure"
	"weft/internal/hint"
	"weft/internal/leases/deletions"
	"weft/internal/leases/holder"
	"weft/internal/peer"
	"weft/internal/podlink"
	"weft/internal/signal"
	"weft/ipam"
)

// Host is the bridge of this node. Methods may be called from any goroutine; they make netlink requests and must not call
// the Manager.
type Host interface {
	// Up reports whether the bridge and the datapath behind it are there: before that no pod can join.
	Up() bool
	// MTU returns the MTU of pods in bytes.
	MTU() int
	// BridgeAddresses returns the addresses that the bridge has inside the overlay's ranges; none where there is no bridge.
	BridgeAddresses() ([]netip.Prefix, error)
	// AddBridgeAddress gives the bridge an address that it may have already.
	AddBridgeAddress(netip.Prefix) error
	// RemoveBridgeAddress removes an address from the bridge.
	RemoveBridgeAddress(netip.Prefix) error
	// ApplyInward puts the mode of Exposure for packets from outside the overlay in force. An error means that it is not.
	ApplyInward(context.Context) error
}

// Names is the registry of names that go with leases. Errors are *hint.Error. Methods may be called from any goroutine.
type Names interface {
	// Canonical returns a name in the form that Held has. It refuses text that cannot be a name.
	Canonical(name string) (string, error)
	// Add gives addresses of this node a name that lasts until Release.
	Add(name string, h holder.Holder, addrs ...netip.Addr) error
	// Release removes the names of a holder at addr, or all of them where addr is not valid.
	Release(h holder.Holder, addr netip.Addr)
	// Held returns the names of this node that go with leases, in any order, those that are withdrawn included.
	Held() []HeldName
	// Withdraw ends the names of a holder until Restore, or until Add adds them again.
	Withdraw(h holder.Holder)
	// Restore brings back the names of a holder that are withdrawn.
	Restore(h holder.Holder) error
	// Remove removes a name of this node from addresses.
	Remove(name string, addrs ...netip.Addr) error
}

// HeldName is a name that goes with a lease.
type HeldName struct {
	Name   string
	Holder holder.Holder
	Addr   netip.Addr

	Withdrawn bool // it is not answered
}

// Nodes names nodes for people. NodeName returns an empty string for an unknown node; it must not wait.
type Nodes interface {
	NodeName(peer.ID) string
}

// Config is what a Manager is made of. All fields but Logger are required.
type Config struct {
	Self   peer.ID
	Ranges []netip.Prefix
	Bridge string // name of the bridge
	// Grace is how long the interfaces of an attachment may be missing before its lease ends: runtimes restart pods after a
	// reboot, and plugins delete what they added, in less.
	Grace time.Duration

	Allocator *ipam.Allocator
	Host      Host
	Exposure  *exposure.Store
	Names     Names
	Nodes     Nodes
	Links     podlink.Linker
	Probes    bool // lease addresses for the probes of direct routing
	Deletions deletions.Queue
	DNSDomain string // of names
	DNS       bool   // the gateways answer queries for names
	Guards    Guards
	Guard     api.GuardMode // what pods may send unless a request says otherwise; never empty
	// GuardByRequest says that another program knows which containers are bound, and requests it: weft-kube, which reads annotations.
	// Containers that run without a guard are left to it.
	GuardByRequest bool
	Logger         *slog.Logger // nil: nothing is logged
}

// Manager manages the leases of this node. All methods may be called from any goroutine.
type Manager struct {
	cfg     Config // constant after New
	log     *slog.Logger
	recheck signal.Chan // makes Run look for orphans at once

	freed  atomic.Uint64          // leases that ended because their attachment was gone
	survey atomic.Pointer[survey] // result of the last search for orphans; never nil after New

	gatewayMu sync.Mutex // held while gatewayOf looks for an address, and makes one
	inwardMu  sync.Mutex // held while the mode for packets from outside changes

	unguarded unguarded
	gateways  gateways
	former    formerNames

	changing sync.Mutex                   // serializes requests that add or remove addresses
	surveyMu sync.Mutex                   // serializes searches, and Hide
	claims   map[netip.Addr]claimedBefore // guarded by surveyMu: recent requests for addresses of orphans
}

// New returns a Manager that has looked once for pods without a lease, so that their addresses are not leased to others.
func New(cfg Config) *Manager {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Manager{cfg: cfg, log: cfg.Logger, recheck: signal.New()}
	m.findOrphans()
	return m
}

// Run ends leases of attachments that are gone, claims the addresses of orphans and binds pods without a guard until ctx ends.
// It is called once the bridge is up.
func (m *Manager) Run(ctx context.Context) {
	var group errgroup.Group
	group.Go(func() error { m.collectGarbage(ctx); return nil })
	group.Go(func() error { m.watchOrphans(ctx); return nil })
	group.Go(func() error { m.guardRunning(ctx); return nil })
	group.Go(func() error { m.followPairs(ctx); return nil })
	group.Go(func() error { m.leaseProbes(ctx); return nil })
	_ = group.Wait()
}

// Recheck makes Run look for orphans at once, as when a range has just been divided.
func (m *Manager) Recheck() { m.recheck.Set() }

// Freed counts the leases that ended because their attachment was gone.
func (m *Manager) Freed() uint64 { return m.freed.Load() }

// errStarting is returned by requests that need the bridge before it is up.
func errStarting() error {
	return hint.New(hint.Starting, "Try again in a moment, or run \"weft wait\" first.", "the node is still starting")
}

// Leases returns the leases of the given holder in text form, including those held for its lost pairs, or all leases of this
// node where owner is empty. The result is never nil.
func (m *Manager) Leases(owner string) []api.Lease {
	if owner == "" {
		return m.documents(m.cfg.Allocator.Leases())
	}
	return m.documents(append(m.lookup(holder.Parse(owner)), m.heldFor(holder.Parse(owner))...))
}

// Allocate leases an address to a holder: the one of the request, else one in the requested prefix, else one of each range.
func (m *Manager) Allocate(ctx context.Context, in api.AddressRequest) ([]api.Lease, error) {
	h, err := clientHolder(in.Owner)
	if err != nil {
		return nil, err
	}
	if err := m.adopt(h); err != nil {
		return nil, err
	}
	var leases []ipam.Lease
	switch {
	case in.IP.IsValid():
		leases, err = one(m.cfg.Allocator.Claim(ctx, in.Owner, in.IP))
	case in.In.IsValid():
		leases, err = one(m.cfg.Allocator.Allocate(ctx, in.Owner, in.In))
	default:
		leases, err = m.cfg.Allocator.AllocateAll(ctx, in.Owner)
	}
	if err != nil {
		return nil, Explain(err)
	}
	return m.documents(leases), nil
}

func one(l ipam.Lease, err error) ([]ipam.Lease, error) { return []ipam.Lease{l}, err }

// Release ends the lease of addr to a holder, or all of its leases where addr is not valid, and the names that go with them.
func (m *Manager) Release(owner string, addr netip.Addr) error {
	h, err := clientHolder(owner)
	if err != nil {
		return err
	}
	return Explain(m.release(h, addr))
}

// release is Release for any holder.
func (m *Manager) release(h holder.Holder, addr netip.Addr) error {
	err := m.cfg.Allocator.Release(h.String(), addr)
	m.cfg.Allocator.Dismiss(h.String())
	if errors.Is(err, ipam.ErrUnknownOwner) && !addr.IsValid() && m.endOrphansOf(h) {
		err = nil
	}
	if err == nil || errors.Is(err, ipam.ErrUnknownOwner) {
		m.cfg.Names.Release(h, addr)
	}
	if !addr.IsValid() {
		if guardErr := m.endGuards(context.Background(), h); guardErr != nil {
			m.log.Warn("cannot end the guard of an attachment", "holder", h, "err", guardErr)
		}
	}
	return err
}

// releaseIfLeased is release where a holder without leases is success.
func (m *Manager) releaseIfLeased(h holder.Holder, addr netip.Addr) error {
	if err := m.release(h, addr); !errors.Is(err, ipam.ErrUnknownOwner) {
		return err
	}
	return nil
}

// lookup returns the leases of a holder.
func (m *Manager) lookup(h holder.Holder) []ipam.Lease { return m.cfg.Allocator.Lookup(h.String()) }

// prefixOf returns the address of a lease as it is configured: an address of the bridge may have another length than its range.
func (m *Manager) prefixOf(l ipam.Lease) netip.Prefix {
	if h := holder.Parse(l.Holder); h == holder.ForHost() || h == holder.ForGateway() {
		return m.cfg.Exposure.Prefix(l.Prefix())
	}
	return l.Prefix()
}

// inRanges reports whether a range of the overlay contains an address.
func (m *Manager) inRanges(a netip.Addr) bool { return m.rangeOf(a).IsValid() }

func (m *Manager) rangeOf(a netip.Addr) netip.Prefix {
	for _, r := range m.cfg.Ranges {
		if r.Contains(a) {
			return r
		}
	}
	return netip.Prefix{}
}

// documents returns leases as documents; never nil, so that JSON has a list.
func (m *Manager) documents(leases []ipam.Lease) []api.Lease {
	docs := make([]api.Lease, 0, len(leases))
	for _, l := range leases {
		docs = append(docs, api.Lease{Owner: l.Holder, IP: m.prefixOf(l), Since: l.Since})
	}
	return docs
}

// clientHolder returns the holder that a client named. It refuses holders that only the daemon may use.
func clientHolder(text string) (holder.Holder, error) {
	h := holder.Parse(text)
	switch {
	case text == "":
		return h, hint.New(hint.Invalid, "Name what the address is for.", "the owner is empty")
	case h.Kind == holder.Orphan:
		return h, hint.New(hint.Invalid, "weft ends this lease when the pod is deleted, and transfers it when the pod is attached again.",
			"the owner %q is reserved", text)
	case h.IsReserved():
		return h, hint.New(hint.Invalid, "Use another owner; \"weft expose\" and \"weft hide\" change the bridge's own addresses.",
			"the owner %q is reserved", text)
	}
	return h, nil
}

// hinted is an error that knows what an operator can do about it.
type hinted interface {
	error
	Hint() string
}

// plainHolder is an error of the allocator with the holder of the bridge's addresses in words.
type plainHolder struct{ error }

// Error implements error.
func (e plainHolder) Error() string {
	const bridge = "the bridge (the gateway of pods)"
	text := strings.ReplaceAll(e.error.Error(), strconv.Quote(holder.ForHost().String()), bridge)
	return strings.ReplaceAll(text, strconv.Quote(holder.ForGateway().String()), bridge)
}

// Unwrap returns the error of the allocator.
func (e plainHolder) Unwrap() error { return e.error }

// Explain returns an error of the allocator with its kind and a hint, as a *hint.Error; nil for nil.
func Explain(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*hint.Error](err); ok {
		return err
	}
	for _, k := range []struct {
		err  error
		kind hint.Kind
		hint string
	}{
		{ipam.ErrExhausted, hint.Exhausted, "Release unused addresses (\"weft ip list\" shows them on each node), or bring unreachable " +
			"nodes back."},
		{ipam.ErrUnknownOwner, hint.NotFound, "List the owners with \"weft ip list\"."},
		{ipam.ErrOutside, hint.Invalid, "\"weft ipam\" shows the ranges of the overlay."},
		{ipam.ErrLeased, hint.Refused, "Choose another address, or release that one."},
		{ipam.ErrUnreachable, hint.Refused, "Choose another address, or bring that node back."},
		{ipam.ErrAlive, hint.Refused, "Run \"weft leave\" there, or stop it first."},
		{ipam.ErrUnresponsive, hint.Refused, "Try again: the reclaim continues from there."},
		{ipam.ErrLeft, hint.Refused, "Start the daemon again to join anew."},
		{ipam.ErrNoNewOwner, hint.Refused, "\"weft peers\" shows which nodes are reachable; try again when one is."},
		{context.DeadlineExceeded, hint.Timeout, "\"weft ipam\" and \"weft peers\" show what is missing."},
	} {
		if errors.Is(err, k.err) {
			if h, ok := errors.AsType[hinted](err); ok {
				k.hint = h.Hint()
			}
			return hint.New(k.kind, k.hint, "%w", plainHolder{err})
		}
	}
	return hint.New(hint.Internal, "The daemon's log has more.", "%w", err)
}
