package mesh

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// ErrSecret is wrapped by the errors about a node with which this one has no secret in common: each is a *SecretError.
var ErrSecret = errors.New("mesh: no secret in common")

// MismatchReason is how the secrets of this node and another one differ.
type MismatchReason uint8

// The reasons of a key mismatch. The zero MismatchReason is invalid.
const (
	MismatchOther   MismatchReason = iota + 1 // both nodes have secrets, and none in common
	MismatchThere                             // the other node has none
	MismatchHere                              // this node has none
	MismatchUnclear                           // a packet does not decrypt: it has another key, is plain, or is garbage
)

// String returns the reason as the predicate of a sentence about the other node.
func (m MismatchReason) String() string {
	switch m {
	case MismatchOther:
		return "has another secret than this node"
	case MismatchThere:
		return "has no secret while this node has one"
	case MismatchHere:
		return "has a secret while this node has none"
	case MismatchUnclear:
		return "has another secret than this node, or none, or sends garbage"
	default:
		return "has an unknown key mismatch"
	}
}

// Remedy returns what an operator can do about the mismatch, as an imperative.
func (m MismatchReason) Remedy() string {
	switch m {
	case MismatchThere:
		return "start that node with a --secret-file that has a line of this node's"
	case MismatchHere:
		return "start this node with a --secret-file that has a line of that node's"
	default:
		return "put one common line into the --secret-file of both nodes, and run \"weft reload\" on both"
	}
}

// SecretError is the error of an exchange with the node at Addr that failed because of its key.
type SecretError struct {
	Addr   netip.AddrPort
	Reason MismatchReason
}

// Error implements error.
func (e *SecretError) Error() string {
	return fmt.Sprintf("%v: the node at %s %s: %s", ErrSecret, e.Addr, e.Reason, e.Reason.Remedy())
}

// Is reports whether target is ErrSecret.
func (e *SecretError) Is(target error) bool { return target == ErrSecret }

// Bounds of the key mismatches that are kept: anyone can cause one, from any address.
const (
	maxKeyMismatches    = 16
	keyMismatchTTL      = 3 * time.Minute  // longer than the pauses between a node's attempts to join
	keyMismatchLogPause = 10 * time.Minute // between two log lines about one address
)

// KeyMismatch is an address from which gossip came that this node cannot decrypt, or which cannot decrypt this node's.
type KeyMismatch struct {
	Addr   netip.Addr
	Reason MismatchReason
	Last   time.Time // of the latest gossip
}

// keyMismatches keeps the latest key mismatches, at most maxKeyMismatches. Its methods may be called concurrently.
type keyMismatches struct {
	mu     sync.Mutex
	byAddr map[netip.Addr]loggedMismatch // guarded by mu
}

type loggedMismatch struct {
	KeyMismatch
	logged time.Time // when it was last to be logged
}

func newKeyMismatches() *keyMismatches {
	return &keyMismatches{byAddr: make(map[netip.Addr]loggedMismatch)}
}

// record records gossip from addr at now, and reports whether to log it: when it is new, has another reason than before,
// or was last logged keyMismatchLogPause ago.
func (k *keyMismatches) record(addr netip.Addr, reason MismatchReason, now time.Time) (log bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e, known := k.byAddr[addr]
	if !known {
		k.makeRoom(now)
	}
	if known && reason == MismatchUnclear {
		reason = e.Reason // the one before may be clearer
	}
	log = !known || reason != e.Reason || now.Sub(e.logged) >= keyMismatchLogPause
	e.KeyMismatch = KeyMismatch{Addr: addr, Reason: reason, Last: now}
	if log {
		e.logged = now
	}
	k.byAddr[addr] = e
	return log
}

// makeRoom drops expired entries, and the oldest one when there is still no room for one more; mu is held.
func (k *keyMismatches) makeRoom(now time.Time) {
	var oldest loggedMismatch
	for addr, e := range k.byAddr {
		if now.Sub(e.Last) > keyMismatchTTL {
			delete(k.byAddr, addr)
		} else if !oldest.Addr.IsValid() || e.Last.Before(oldest.Last) {
			oldest = e
		}
	}
	if len(k.byAddr) >= maxKeyMismatches {
		delete(k.byAddr, oldest.Addr)
	}
}

// list returns the mismatches that have not expired at now, ordered by address.
func (k *keyMismatches) list(now time.Time) []KeyMismatch {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []KeyMismatch
	for _, e := range k.byAddr {
		if now.Sub(e.Last) <= keyMismatchTTL {
			list = append(list, e.KeyMismatch)
		}
	}
	slices.SortFunc(list, func(a, b KeyMismatch) int { return a.Addr.Compare(b.Addr) })
	return list
}

// KeyMismatches returns the addresses of nodes that seem to have no secret in common with this one, of the last minutes:
// at most 16, ordered. Addresses at which a member is alive now are left out: the mismatch there is over.
func (m *Mesh) KeyMismatches() []KeyMismatch {
	list := m.keyMismatches.list(time.Now())
	return slices.DeleteFunc(list, func(k KeyMismatch) bool { return m.roster.aliveAtHost(k.Addr) })
}

// reportMismatch records a key mismatch, and logs it unless it was logged lately.
func (m *Mesh) reportMismatch(addr netip.Addr, reason MismatchReason) {
	now := time.Now()
	if !m.keyMismatches.record(addr, reason, now) {
		return
	}
	if _, ok := m.mismatchLog.Admit(now); ok {
		m.log.Warn("gossip of a node refused: no secret in common", "addr", addr, "reason", "it "+reason.String(),
			"remedy", reason.Remedy())
	}
}

// isOtherSecret reports whether err means that both nodes have secrets, and that the one in use here is unknown there.
func isOtherSecret(err error) bool {
	e, ok := errors.AsType[*SecretError](err)
	return ok && e.Reason == MismatchOther
}
