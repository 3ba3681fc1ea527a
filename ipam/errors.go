package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"weft/internal/peer"
	"weft/internal/plural"
	"weft/ipam/ring"
	"weft/ipam/space"
)

// Errors that callers branch on. Some are wrapped by a type with fields and a method Hint, which returns the remedy as
// sentences for an operator.
var (
	// ErrExhausted is wrapped when no node has an address left where one was requested; see ExhaustedError.
	ErrExhausted = errors.New("ipam: no address left")
	// ErrLeased is wrapped by Claim when another holder has the address; see LeasedError.
	ErrLeased = errors.New("ipam: address in use")
	// ErrUnreachable is wrapped by Claim when the node that owns the address cannot be reached; see UnreachableError.
	ErrUnreachable = errors.New("ipam: owner unreachable")
	// ErrUnknownOwner is wrapped by Release and Reassign when a holder has no such lease on this node.
	ErrUnknownOwner = errors.New("ipam: unknown owner")
	// ErrOutside is wrapped when a requested address or prefix is not within the ranges, or is never allocated.
	ErrOutside = errors.New("ipam: not an address of the overlay")
	// ErrLeft is wrapped by all operations that need addresses after Leave.
	ErrLeft = errors.New("ipam: this node has left")
	// ErrNoNewOwner is wrapped by Leave when there are other nodes and none can be reached.
	ErrNoNewOwner = errors.New("ipam: no node to hand the addresses over to")
	// ErrAlive is wrapped by Reclaim where a node that was named as dead is alive.
	ErrAlive = errors.New("ipam: that node is alive")
	// ErrUnresponsive is wrapped by Reclaim where a node that must agree does not answer; see UnresponsiveError.
	ErrUnresponsive = errors.New("ipam: an owner does not answer")
)

// ExhaustedError is returned by Allocate when no reachable node has a free address in a prefix. It wraps ErrExhausted.
type ExhaustedError struct {
	Prefix       netip.Prefix
	Leased, Size uint64   // how many of the addresses that may be allocated are leased, as far as is known
	Unreachable  []string // names of owners of a part of it that cannot be reached, sorted
	Silent       []string // names of owners that did not answer, sorted
	Apart        uint64   // how many free addresses of this node are in subnets of their own, and for holders in these alone
}

// Error implements error.
func (e *ExhaustedError) Error() string {
	text := fmt.Sprintf("%v: %s is full: %d of %d addresses leased", ErrExhausted, e.Prefix, e.Leased, e.Size)
	if e.Leased < e.Size {
		text = fmt.Sprintf("%v: no node that can be reached has a free address of %s, of which %d of %d are leased", ErrExhausted, e.Prefix,
			e.Leased, e.Size)
	}
	if e.Apart > 0 {
		text += fmt.Sprintf("; %s for holders in subnets of their own alone", plural.Count(int(e.Apart), "address"))
	}
	if len(e.Unreachable) > 0 {
		text += fmt.Sprintf("; %s unreachable (%s)", plural.Count(len(e.Unreachable), "owner"), plural.List(e.Unreachable))
	}
	if len(e.Silent) > 0 {
		text += fmt.Sprintf("; %s gave no answer (%s)", plural.Count(len(e.Silent), "owner"), plural.List(e.Silent))
	}
	return text
}

// Unwrap returns ErrExhausted.
func (e *ExhaustedError) Unwrap() error { return ErrExhausted }

// Hint returns what an operator can do.
func (e *ExhaustedError) Hint() string {
	hint := "Release addresses that are not used (`weft ip list` on each node shows them)."
	if len(e.Unreachable) > 0 {
		hint += " Wait for the unreachable nodes, or run `weft reclaim NODE` for those that are dead for good."
	}
	if len(e.Silent) > 0 {
		hint += " Try again: not all nodes have answered."
	}
	return hint
}

// LeasedError is returned by Claim when another holder has the address. It wraps ErrLeased.
type LeasedError struct {
	Addr   netip.Addr
	Holder string // that has it
	Node   string // name of the node with the lease; empty: this node
}

// Error implements error.
func (e *LeasedError) Error() string {
	if e.Node == "" {
		return fmt.Sprintf("%v: %s is leased to %q", ErrLeased, e.Addr, e.Holder)
	}
	return fmt.Sprintf("%v: %s is leased to %q on node %s", ErrLeased, e.Addr, e.Holder, e.Node)
}

// Unwrap returns ErrLeased.
func (e *LeasedError) Unwrap() error { return ErrLeased }

// Hint returns what an operator can do.
func (e *LeasedError) Hint() string {
	if e.Node == "" {
		return "Choose another address, or release that one first: \"weft ip list\" shows the leases of this node."
	}
	return fmt.Sprintf("Choose another address, or release that one on node %s first.", e.Node)
}

// reservedError is returned by Claim for an address that no host may have. It wraps ErrOutside.
type reservedError struct {
	addr netip.Addr
	what string // such as "the broadcast address of 10.32.0.0/12"
}

// Error implements error.
func (e *reservedError) Error() string { return fmt.Sprintf("ipam: %s is %s", e.addr, e.what) }

// Unwrap returns ErrOutside.
func (e *reservedError) Unwrap() error { return ErrOutside }

// Hint returns what an operator can do.
func (e *reservedError) Hint() string { return "Choose another address: no host may have that one." }

// timeoutError is the error of an operation that has waited in vain.
type timeoutError struct {
	what, reason string // what it failed to get, and what it waited for
	cause        error  // of the context
}

// Error implements error.
func (e *timeoutError) Error() string {
	return fmt.Sprintf("ipam: %s: still waiting for %s", e.what, e.reason)
}

// Unwrap returns the cause.
func (e *timeoutError) Unwrap() error { return e.cause }

// UnreachableError is returned by Claim when the node that owns the address cannot be reached. It wraps ErrUnreachable.
type UnreachableError struct {
	Addr  netip.Addr
	Owner peer.ID
	Name  string // of the owner
}

// Error implements error.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("%v: %s belongs to node %s", ErrUnreachable, e.Addr, e.Name)
}

// Unwrap returns ErrUnreachable.
func (e *UnreachableError) Unwrap() error { return ErrUnreachable }

// Hint returns what an operator can do.
func (e *UnreachableError) Hint() string {
	return fmt.Sprintf("Wait for node %s, or choose another address; if it is dead for good, run `weft reclaim %s`.", e.Name, e.Name)
}

// UnresponsiveError is returned by Reclaim where a node that must agree does not answer. It wraps ErrUnresponsive.
type UnresponsiveError struct {
	Node      peer.ID
	Name      string       // of Node
	Reachable bool         // Node can be reached, and has not answered in time
	Range     netip.Prefix // of which Node may own addresses
	Dead      peer.ID      // the node with the addresses to reclaim
	DeadName  string
	Named     []peer.ID // the nodes that were named as dead, sorted
}

// Error implements error.
func (e *UnresponsiveError) Error() string {
	if e.Reachable {
		return fmt.Sprintf("%v: node %s has not answered about the addresses of node %s in %s", ErrUnresponsive, e.Name, e.DeadName, e.Range)
	}
	return fmt.Sprintf("%v: node %s may own addresses of %s too and is not reachable", ErrUnresponsive, e.Name, e.Range)
}

// Unwrap returns ErrUnresponsive.
func (e *UnresponsiveError) Unwrap() error { return ErrUnresponsive }

// Hint returns what an operator can do. The command names Node in addition to the nodes that were named before.
func (e *UnresponsiveError) Hint() string {
	command := "weft reclaim"
	for _, id := range append(slices.Clone(e.Named), e.Node) {
		command += " " + id.String()
	}
	first := "Bring node %s back and try again"
	if e.Reachable {
		first = "Try again when node %s answers"
	}
	return fmt.Sprintf(first+": the reclaim continues then. If it is dead for good, reclaim it too: `%s`.", e.Name, command)
}

// StoredRangeError is returned by New when the store is for another range than the configured one.
type StoredRangeError struct{ Source, Stored, Configured string }

// Error implements error.
func (e *StoredRangeError) Error() string {
	return fmt.Sprintf("ipam: %s is for the range %s, but this node is configured to use %s", e.Source, e.Stored, e.Configured)
}

// Hint returns what an operator can do.
func (e *StoredRangeError) Hint() string {
	return fmt.Sprintf("Start with --range %s. To change the range, detach all pods, move the file away and start without state.", e.Stored)
}

// exhausted returns the error for a full prefix, the usable offsets of which are span. The caller holds mu.
func (a *Allocator) exhausted(p *pool, in netip.Prefix, span ring.Span, s *search) error {
	e := &ExhaustedError{Prefix: in, Leased: span.Len(), Size: span.Len()}
	for _, total := range p.ring.TotalsWithin(span) {
		switch {
		case total.Owner == a.cfg.Self:
			e.Apart += p.space.FreeIn(space.Span(span)) // any others would have been allocated
			e.Leased -= min(e.Apart, e.Leased)
			continue
		case !a.cfg.Membership.Reachable(total.Owner):
			e.Unreachable = append(e.Unreachable, a.name(total.Owner))
		case s.tried[total.Owner] == unanswered:
			e.Silent = append(e.Silent, a.name(total.Owner))
		default:
			continue
		}
		e.Leased -= min(total.Free, e.Leased)
	}
	slices.Sort(e.Unreachable)
	slices.Sort(e.Silent)
	return e
}
