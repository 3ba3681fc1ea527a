// Package mismatch describes nodes that have no secret in common with this one, and keeps the latest of them.
package mismatch

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// ErrSecret is wrapped by the errors about a node with which this one has no secret in common: each is a *Error.
var ErrSecret = errors.New("no secret in common")

// Reason is how the secrets of this node and another one differ.
type Reason uint8

// The reasons of a key mismatch. The zero Reason is invalid.
const (
	Other   Reason = iota + 1 // both nodes have secrets, and none in common
	There                     // the other node has none
	Here                      // this node has none
	Unclear                   // a packet does not decrypt: it has another key, is plain, or is garbage
)

// String returns the reason as the predicate of a sentence about the other node.
func (r Reason) String() string {
	switch r {
	case Other:
		return "has another secret than this node"
	case There:
		return "has no secret while this node has one"
	case Here:
		return "has a secret while this node has none"
	case Unclear:
		return "has another secret than this node, or none, or sends garbage"
	default:
		return "has an unknown key mismatch"
	}
}

// Remedy returns what an operator can do about the mismatch, as an imperative.
func (r Reason) Remedy() string {
	switch r {
	case There:
		return "start that node with a --secret-file that has a line of this node's"
	case Here:
		return "start this node with a --secret-file that has a line of that node's"
	default:
		return "put one common line into the --secret-file of both nodes, and run \"weft reload\" on both"
	}
}

// Error is the error of an exchange with the node at Addr that failed because of its key.
type Error struct {
	Addr   netip.AddrPort
	Reason Reason
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("%v: the node at %s %s: %s", ErrSecret, e.Addr, e.Reason, e.Reason.Remedy())
}

// Is reports whether target is ErrSecret.
func (e *Error) Is(target error) bool { return target == ErrSecret }

// Bounds of the key mismatches that are kept: anyone can cause one, from any address.
const (
	maxEntries = 16
	ttl        = 3 * time.Minute  // longer than the pauses between a node's attempts to join
	logPause   = 10 * time.Minute // between two log lines about one address
)

// Entry is an address from which gossip came that this node cannot decrypt, or which cannot decrypt this node's.
type Entry struct {
	Addr   netip.Addr
	Reason Reason
	Last   time.Time // of the latest gossip
}

// Recent keeps the latest key mismatches, at most maxEntries. Its methods may be called concurrently.
type Recent struct {
	mu     sync.Mutex
	byAddr map[netip.Addr]loggedEntry // guarded by mu
}

type loggedEntry struct {
	Entry
	logged time.Time // when it was last to be logged
}

// NewRecent returns an empty Recent.
func NewRecent() *Recent {
	return &Recent{byAddr: make(map[netip.Addr]loggedEntry)}
}

// Record records gossip from addr at now, and reports whether to log it: when it is new, has another reason than before,
// or was last logged logPause ago.
func (r *Recent) Record(addr netip.Addr, reason Reason, now time.Time) (log bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, known := r.byAddr[addr]
	if !known {
		r.makeRoom(now)
	}
	if known && reason == Unclear {
		reason = e.Reason // the one before may be clearer
	}
	log = !known || reason != e.Reason || now.Sub(e.logged) >= logPause
	e.Entry = Entry{Addr: addr, Reason: reason, Last: now}
	if log {
		e.logged = now
	}
	r.byAddr[addr] = e
	return log
}

// Forget drops the mismatch of an address, which is over.
func (r *Recent) Forget(addr netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byAddr, addr)
}

// makeRoom drops expired entries, and the oldest one when there is still no room for one more; mu is held.
func (r *Recent) makeRoom(now time.Time) {
	var oldest loggedEntry
	for addr, e := range r.byAddr {
		if now.Sub(e.Last) > ttl {
			delete(r.byAddr, addr)
		} else if !oldest.Addr.IsValid() || e.Last.Before(oldest.Last) {
			oldest = e
		}
	}
	if len(r.byAddr) >= maxEntries {
		delete(r.byAddr, oldest.Addr)
	}
}

// List returns the mismatches that have not expired at now, ordered by address.
func (r *Recent) List(now time.Time) []Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []Entry
	for _, e := range r.byAddr {
		if now.Sub(e.Last) <= ttl {
			list = append(list, e.Entry)
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return a.Addr.Compare(b.Addr) })
	return list
}
