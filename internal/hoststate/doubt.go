package hoststate

import "time"

// DoubtTime is how long a difference must last that the kernel may be about to remove by itself: it adds the local routes of IPv6 some
// milliseconds after their addresses.
const DoubtTime = 300 * time.Millisecond

// Doubt holds back actions for differences that may end by themselves. The zero Doubt has no history. It is not safe for concurrent use.
type Doubt struct{ since map[Key]time.Time }

// Ripe returns the actions that need no wait any more. pending reports whether it has held one back.
func (d *Doubt) Ripe(list []Action, now time.Time) (ripe []Action, pending bool) {
	since := make(map[Key]time.Time)
	for _, a := range list {
		if a.Kind != AddLocal {
			ripe = append(ripe, a)
			continue
		}
		key := Key{a.Kind, a.Object()}
		first, known := d.since[key]
		if !known {
			first = now
		}
		since[key] = first
		if now.Sub(first) < DoubtTime {
			pending = true
		} else {
			ripe = append(ripe, a)
		}
	}
	d.since = since
	return ripe, pending
}
