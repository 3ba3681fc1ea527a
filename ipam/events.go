package ipam

import (
	"fmt"
	"slices"
	"time"

	"weft/internal/health"
)

// maxEvents bounds how many events are kept of a pool.
const maxEvents = 8

// lifetimes says for how long after an event its finding is shown. A range that was divided twice is met again with every exchange
// between the two. A reclaim has ended leases, each of which is reported by itself. A conflict is over once it is resolved, and stays in
// sight for an operator who looks into what it has caused.
var lifetimes = map[health.Code]time.Duration{
	health.SpaceReclaimed:    10 * time.Minute,
	health.RangeDividedTwice: 3 * time.Minute,
	health.StaleState:        time.Hour,
	health.OwnershipConflict: time.Hour,
}

// event is a finding about something that happened.
type event struct {
	health.Finding
	at time.Time // when it happened last
}

// events are what happened to a pool, the latest last. The zero value is empty. It is guarded by the Allocator's mu.
type events []event

// report records an event. One that is known already is as new as this one.
func (e *events) report(code health.Code, remedy, format string, args ...any) {
	f := health.Finding{Code: code, Text: fmt.Sprintf(format, args...), Remedy: remedy}
	f.Key = f.Text
	list := slices.DeleteFunc(*e, func(old event) bool { return old.Finding == f })
	list = append(list, event{f, time.Now()})
	*e = list[max(len(list)-maxEvents, 0):]
}

// findings returns what is shown at now.
func (e events) findings(now time.Time) (list []health.Finding) {
	for _, event := range e {
		if now.Sub(event.at) < lifetimes[event.Code] {
			list = append(list, event.Finding)
		}
	}
	return list
}
