package hoststate

import (
	"maps"
	"strings"
	"time"
)

// Grace is how long a pod's host end may be incomplete when it is new: it is being attached.
const Grace = time.Second

// Pods remembers the host ends of pods as they were when they were complete: port of the bridge, and up. They are restored to that.
// It is not safe for concurrent use.
type Pods struct {
	// Prefix is that of the names of host ends.
	Prefix string
	// Records are what the aliases of host ends record about pods, by the names of host ends. They are set before Observe.
	Records map[string]Record

	ends   map[string]podEnd
	adopt  bool            // Adopt was called since the last Observe
	leased map[string]bool // names of AdoptLeased since the last Observe
}

// Record is what the alias of a host end records about its pod. Another program may overwrite it.
type Record struct {
	Hairpin bool
	Older   bool // an older version wrote it, which recorded no hairpin mode
}

// podEnd is a host end.
type podEnd struct {
	index    int
	since    time.Time // when it was first seen
	adopted  bool      // it is ours although it was on no bridge when it was first seen
	complete bool      // it was complete, or has been there for long
	pod      Pod
	alias    string // the last one that was a record
}

// Adopt makes host ends that are on no bridge at the next Observe ours: the bridge was missing, and is there again. At other times
// such a host end may belong to a second network on this host, with a bridge of its own.
func (p *Pods) Adopt() { p.adopt = true }

// AdoptLeased makes host ends with these names ours at the next Observe, if they are on no bridge or on another one: their pods have
// leases of this node.
func (p *Pods) AdoptLeased(names []string) {
	p.leased = make(map[string]bool, len(names))
	for _, name := range names {
		p.leased[name] = true
	}
}

// Observe updates the host ends from what there is now. A host end that was never complete counts as complete after Grace: an earlier
// run, or another program, has left it so. pending reports whether there is one for which this time runs.
func (p *Pods) Observe(o Observed, bridge string, now time.Time) (pending bool) {
	next := make(map[string]podEnd)
	for name, l := range o.Links {
		if l.Kind != "veth" || !strings.HasPrefix(name, p.Prefix) {
			continue
		}
		end, known := p.ends[name]
		if !known || end.index != l.Index {
			end = podEnd{index: l.Index, since: now}
		}
		end.adopted = end.adopted || (p.adopt || p.leased[name]) && l.Master == ""
		switch {
		case end.complete:
			end.pod.MTU = max(end.pod.MTU, l.MTU)
		case l.Master == bridge && l.Up:
			end.complete, end.pod = true, Pod{MTU: l.MTU, Hairpin: p.hairpin(name, l.Port[Hairpin])}
		case l.Master != bridge && l.Master != "" && p.leased[name]: // moved while no daemon was there
			end.complete, end.pod = true, Pod{MTU: l.MTU, Hairpin: p.hairpin(name, true)}
		case l.Master != bridge && (l.Master != "" || !end.adopted): // of another network, or being attached
		case now.Sub(end.since) >= Grace:
			end.complete, end.pod = true, Pod{MTU: l.MTU, Hairpin: p.hairpin(name, true)} // older versions attached pods with it
		default:
			pending = true
		}
		end.pod.Alias = ""
		if _, recorded := p.Records[name]; recorded {
			end.alias = l.Alias
		} else {
			end.pod.Alias = end.alias
		}
		next[name] = end
	}
	p.ends, p.adopt, p.leased = next, false, nil
	return pending
}

// hairpin returns the hairpin mode of a host end: the recorded one, or else other.
func (p *Pods) hairpin(name string, other bool) bool {
	if recorded, known := p.Records[name]; known && !recorded.Older {
		return recorded.Hairpin
	}
	return other
}

// Desired returns the host ends that have to be as they were.
func (p *Pods) Desired() map[string]Pod {
	pods := make(map[string]Pod)
	for name, end := range maps.All(p.ends) {
		if end.complete {
			pods[name] = end.pod
		}
	}
	return pods
}
