package domains

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"weft/internal/kube/policy"
)

// Bounds of a Table.
const (
	// MinKeep is how long an address counts at least after the last answer that has it: programs keep addresses longer than they should.
	MinKeep = 10 * time.Minute
	// maxKeep bounds how long an answer counts, whatever its server says.
	maxKeep = 24 * time.Hour
	// OpenKeep is how much longer an address counts at a time that a connection to it is open.
	OpenKeep = time.Minute
	// MaxDomain and MaxTotal are the most addresses of one domain, and of all domains.
	MaxDomain = 1_000
	MaxTotal  = 10_000
)

// Table has the addresses that domains stand for. Of too many addresses of a domain, those end that would end first; of too many in all,
// those of the domain that has most. Its methods must not be called concurrently.
type Table struct {
	domains map[policy.Domain]map[netip.Addr]time.Time // until when each counts
	total   int
}

// Entry is an address of a domain, with the time until which it counts. It is a record of the file that outlives a restart.
type Entry struct {
	Domain policy.Domain
	Addr   netip.Addr
	Until  time.Time
}

// NewTable returns a Table with entries of an earlier one, as far as they are valid.
func NewTable(entries []Entry, now time.Time) *Table {
	t := &Table{domains: map[policy.Domain]map[netip.Addr]time.Time{}}
	for _, e := range entries {
		if d, err := policy.ParseDomain(string(e.Domain)); err != nil || d != e.Domain || !usable(e.Addr) {
			continue
		}
		if latest := now.Add(maxKeep); e.Until.After(latest) {
			e.Until = latest
		}
		t.set(e)
	}
	return t
}

// Learn adds the addresses of an answer to a domain that its name matches. It returns the domains with other addresses than before: this
// one if it has a new address, and those of which addresses ended because there were too many.
func (t *Table) Learn(d policy.Domain, a Answer, now time.Time) (changed []policy.Domain) {
	note := func(d policy.Domain) {
		if d != "" && !slices.Contains(changed, d) {
			changed = append(changed, d)
		}
	}
	until := now.Add(min(max(a.TTL, MinKeep), maxKeep))
	for _, ip := range a.Addrs {
		if before, ok := t.domains[d][ip]; ok && before.After(until) {
			continue
		} else if !ok {
			note(d)
		}
		note(t.set(Entry{d, ip, until}))
	}
	return changed
}

// set adds or replaces an entry. It returns the domain of which an address ended instead; empty: none.
func (t *Table) set(e Entry) (ended policy.Domain) {
	addrs := t.domains[e.Domain]
	if addrs == nil {
		addrs = map[netip.Addr]time.Time{}
		t.domains[e.Domain] = addrs
	}
	if _, ok := addrs[e.Addr]; !ok {
		t.total++
	}
	addrs[e.Addr] = e.Until
	switch {
	case len(addrs) > MaxDomain:
		ended = e.Domain
	case t.total > MaxTotal:
		ended = t.largest()
	default:
		return ""
	}
	t.endFirst(ended, e.Addr)
	return ended
}

// Full returns the domains that have as many addresses as they may have, sorted: of these, addresses end early.
func (t *Table) Full() (full []policy.Domain) {
	for d, addrs := range t.domains {
		if len(addrs) >= MaxDomain {
			full = append(full, d)
		}
	}
	if t.total >= MaxTotal {
		full = append(full, t.largest())
	}
	slices.Sort(full)
	return slices.Compact(full)
}

// largest returns the domain with most addresses.
func (t *Table) largest() (largest policy.Domain) {
	for d, addrs := range t.domains {
		if n := len(t.domains[largest]); len(addrs) > n || len(addrs) == n && d < largest {
			largest = d
		}
	}
	return largest
}

// endFirst removes the address of a domain that would end first, except one.
func (t *Table) endFirst(d policy.Domain, except netip.Addr) {
	var first netip.Addr
	for ip, until := range t.domains[d] {
		if ip != except && (!first.IsValid() || until.Before(t.domains[d][first])) {
			first = ip
		}
	}
	t.remove(d, first)
}

func (t *Table) remove(d policy.Domain, ip netip.Addr) {
	if _, ok := t.domains[d][ip]; !ok {
		return
	}
	t.total--
	if delete(t.domains[d], ip); len(t.domains[d]) == 0 {
		delete(t.domains, d)
	}
}

// Due reports whether the time of an address is over.
func (t *Table) Due(now time.Time) bool {
	for _, addrs := range t.domains {
		for _, until := range addrs {
			if !until.After(now) {
				return true
			}
		}
	}
	return false
}

// Expire removes the addresses that do not count any more, except those with an open connection, and returns their domains.
func (t *Table) Expire(now time.Time, open map[netip.Addr]bool) (changed []policy.Domain) {
	for d, addrs := range t.domains {
		for ip, until := range addrs {
			switch {
			case until.After(now):
			case open[ip]:
				addrs[ip] = now.Add(OpenKeep)
			default:
				t.remove(d, ip)
				if !slices.Contains(changed, d) {
					changed = append(changed, d)
				}
			}
		}
	}
	slices.Sort(changed)
	return changed
}

// Addrs returns the addresses of a domain, sorted.
func (t *Table) Addrs(d policy.Domain) []netip.Addr {
	out := make([]netip.Addr, 0, len(t.domains[d]))
	for ip := range t.domains[d] {
		out = append(out, ip)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// Entries returns all entries, sorted.
func (t *Table) Entries() []Entry {
	out := make([]Entry, 0, t.total)
	for d, addrs := range t.domains {
		for ip, until := range addrs {
			out = append(out, Entry{d, ip, until})
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return cmp.Or(cmp.Compare(a.Domain, b.Domain), a.Addr.Compare(b.Addr)) })
	return out
}

// Len returns the number of addresses.
func (t *Table) Len() int { return t.total }
