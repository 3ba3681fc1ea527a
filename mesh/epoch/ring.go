package epoch

import (
	"bytes"
	"slices"
	"time"

	"weft/internal/peer"
)

const (
	// Grace is how long an epoch still opens packets after another one has replaced it, or after a list of revoked nodes has.
	Grace = 3 * time.Second
	// maxStep is how far the number of an epoch may be ahead of the present one. It keeps a member from using all numbers up. A node
	// that has an epoch further ahead than that gives it up: a member can lead one node there in two steps.
	maxStep = 1 << 32
	// maxOutdo is how far ahead a number may be that another node only announces, and that the next epoch of this node exceeds. It is
	// far below maxStep, so that nodes that have not heard of it adopt that epoch.
	maxOutdo = 1 << 24
	// maxRetired bounds the epochs before the present one that still open, and the names that are remembered after that.
	maxRetired = 16
)

// standing is how an epoch compares with the lists of a node, or with its present epoch.
type standing uint8

const (
	older  standing = iota + 1 // the present one counts, or it is the same
	newer                      // it counts, or by its lists it could
	stale                      // made before a list that this node has
	ahead                      // made after a list that this node does not have yet
	beyond                     // its number is too high: the node that has it gives it up
)

// ring holds the epochs that a node knows. The present one seals and opens.
type ring struct {
	lists   []List // of all CAs that this node trusts, ordered by CA
	present Epoch
	since   time.Time // when present was adopted
	// ended is set when a node that knows the present epoch is not admitted any more: one with a higher number has to come.
	ended bool
	// staleSince is when present became stale; zero: it is not.
	staleSince time.Time
	// challenged is set when another node has an epoch that is stale here, but counts there. The next one of this node has a
	// number above floor.
	challenged bool
	floor      uint64
	retired    []retired
}

// retired is an epoch before the present one.
type retired struct {
	name  Name
	key   [KeySize]byte
	until time.Time // it opens before
}

// judge returns the standing of an epoch with this number and these lists, by the lists alone: newer, stale or ahead.
func (r *ring) judge(lists []List) standing {
	result := newer
	for _, own := range r.lists {
		switch theirs, _ := version(lists, own.CA); {
		case theirs > own.Version:
			return ahead
		case theirs < own.Version:
			result = stale
		}
	}
	return result
}

// unaware reports whether the maker of an epoch cannot know a list of this node, as it does not trust the CA.
func (r *ring) unaware(lists []List) bool {
	return slices.ContainsFunc(r.lists, func(own List) bool {
		_, trusted := version(lists, own.CA)
		return own.Version > 0 && !trusted
	})
}

// version returns the version of a CA's list, and whether the CA is among lists.
func version(lists []List, ca uint32) (uint64, bool) {
	for _, l := range lists {
		if l.CA == ca {
			return l.Version, true
		}
	}
	return 0, false
}

// compare returns the standing of an epoch against the present one.
func (r *ring) compare(number uint64, name Name, lists []List) standing {
	if s := r.judge(lists); s != newer {
		return s
	}
	mine := r.present.Name()
	switch {
	case r.judge(r.present.Lists) != newer:
		return newer
	case r.present.Number > number && r.present.Number-number > maxStep && !r.ended:
		return newer // the present one is beyond for the other node, which can never adopt it
	case number > r.present.Number && number-r.present.Number > maxStep:
		return beyond
	case number > r.present.Number, number == r.present.Number && !r.ended && bytes.Compare(name[:], mine[:]) > 0:
		return newer
	default:
		return older
	}
}

// isStale reports whether present must be replaced: a list is newer, or a node that knows it is not admitted any more.
func (r *ring) isStale() bool { return r.ended || r.judge(r.present.Lists) != newer }

// adopt makes e, which compare calls newer, the present epoch.
func (r *ring) adopt(e Epoch, now time.Time) {
	if !r.since.IsZero() {
		r.retire(now)
	}
	name := e.Name()
	r.retired = slices.DeleteFunc(r.retired, func(old retired) bool { return old.name == name })
	r.present, r.since = e, now
	r.ended, r.challenged, r.staleSince = false, false, time.Time{}
	r.floor = max(r.floor, e.Number)
}

// retire moves the present epoch to those that open for Grace.
func (r *ring) retire(now time.Time) {
	from := now
	if !r.staleSince.IsZero() {
		from = r.staleSince
	}
	r.retired = append(r.retired, retired{r.present.Name(), r.present.Key, from.Add(Grace)})
	if len(r.retired) > maxRetired {
		r.retired = slices.Delete(r.retired, 0, len(r.retired)-maxRetired)
	}
}

// setLists replaces the lists at now.
func (r *ring) setLists(lists []List, now time.Time) {
	r.lists = lists
	r.markStale(now)
}

// end makes present stale at now.
func (r *ring) end(now time.Time) {
	r.ended = true
	r.markStale(now)
}

func (r *ring) markStale(now time.Time) { // keeps the time if it was stale already
	switch {
	case !r.isStale():
		r.staleSince = time.Time{}
	case r.staleSince.IsZero():
		r.staleSince = now
	}
}

// next returns the epoch that follows the present one.
func (r *ring) next(self peer.ID, key [KeySize]byte, now time.Time) Epoch {
	e := Epoch{Maker: self, Made: now.UTC().Truncate(time.Second), Key: key, Lists: r.lists}
	if !r.since.IsZero() {
		e.Number = max(r.present.Number, r.floor) + 1
	}
	return e
}

// Key is a key that opens packets.
type Key struct {
	Name Name
	Key  [KeySize]byte
}

// opening returns the keys that open at now, the present one first.
func (r *ring) opening(now time.Time) (keys []Key) {
	if r.staleSince.IsZero() || now.Before(r.staleSince.Add(Grace)) {
		keys = append(keys, Key{r.present.Name(), r.present.Key})
	}
	for _, old := range slices.Backward(r.retired) {
		if now.Before(old.until) {
			keys = append(keys, Key{old.name, old.key})
		}
	}
	return keys
}

// closesAt returns when the next of the keys that open at now does not open any more; zero: none will.
func (r *ring) closesAt(now time.Time) (at time.Time) {
	ends := []time.Time{}
	if !r.staleSince.IsZero() {
		ends = append(ends, r.staleSince.Add(Grace))
	}
	for _, old := range r.retired {
		ends = append(ends, old.until)
	}
	for _, end := range ends {
		if end.After(now) && (at.IsZero() || end.Before(at)) {
			at = end
		}
	}
	return at
}

// knows reports whether an epoch is, or was lately, one of this node.
func (r *ring) knows(name Name) bool {
	return r.present.Name() == name || slices.ContainsFunc(r.retired, func(old retired) bool { return old.name == name })
}
