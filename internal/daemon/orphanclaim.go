package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/peer"
	"weft/ipam"
)

// Bounds of asking other nodes for the addresses of orphans.
const (
	orphanClaimPause    = 30 * time.Second // between two asks for the same address
	orphanClaimPatience = 3 * time.Second
	orphanClaims        = 8 // at one time
)

// claim asks other nodes for the addresses of orphans that are not leased here, and notes which it does not get.
func (o *orphans) claim(ctx context.Context) {
	wanted := o.unleased()
	last := o.latest.Load()
	var mu sync.Mutex
	failed := make(map[netip.Addr]error)
	for addr, err := range last.failed {
		if _, still := wanted[addr]; still {
			failed[addr] = err
		}
	}
	var group errgroup.Group
	group.SetLimit(orphanClaims)
	for addr, owner := range wanted {
		if !o.mayAsk(addr) {
			continue
		}
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, orphanClaimPatience)
			defer cancel()
			_, err := o.d.ipam.Claim(ctx, owner, addr)
			mu.Lock()
			defer mu.Unlock()
			delete(failed, addr)
			if err != nil && !errors.Is(err, ipam.ErrLeft) {
				failed[addr] = err
			}
			return nil
		})
	}
	_ = group.Wait()
	if len(failed) == 0 && len(last.failed) == 0 {
		return
	}
	next := *last
	next.failed = failed
	o.latest.CompareAndSwap(last, &next) // else a later look has found more
}

// unleased returns what orphans have and this node has not leased to them, in ranges that are divided: a node that was told of nobody
// must not found for their sake.
func (o *orphans) unleased() map[netip.Addr]string {
	wanted := make(map[netip.Addr]string)
	foundings := o.d.ipam.ClusterIDs()
	for _, p := range o.latest.Load().ports {
		owner := orphanPrefix + p.Name
		for _, a := range p.Addrs {
			if _, divided := foundings[o.d.cfg.rangeOf(a)]; divided && !leasedTo(o.d.ipam.Lookup(owner), a) {
				wanted[a] = owner
			}
		}
	}
	return wanted
}

// asked is when an address was asked for, and who was to give it out then.
type asked struct {
	at time.Time
	of peer.ID
}

// mayAsk reports whether it is time to ask for an address, as it is the first time, long after the last, or another's now. It notes that
// it is asked for.
func (o *orphans) mayAsk(addr netip.Addr) bool {
	of, _ := o.d.ipam.OwnerOf(addr)
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	for a, last := range o.asked {
		if now.Sub(last.at) >= orphanClaimPause {
			delete(o.asked, a)
		}
	}
	if last, recently := o.asked[addr]; recently && last.of == of {
		return false
	}
	if o.asked == nil {
		o.asked = make(map[netip.Addr]asked)
	}
	o.asked[addr] = asked{now, of}
	return true
}

func leasedTo(leases []ipam.Lease, addr netip.Addr) bool {
	return slices.ContainsFunc(leases, func(l ipam.Lease) bool { return l.Addr == addr })
}

// orphansTold bounds how many warnings there are of addresses.
const orphansTold = 8

// orphanWarnings returns what an operator should know of pods without a lease.
func (d *Daemon) orphanWarnings() []string {
	s := d.orphans.latest.Load()
	if s == nil {
		return nil
	}
	if s.unknown != nil {
		return []string{fmt.Sprintf("It is not known which pods run here without a lease: %v. Mend that before new ones start here, as they may get "+
			"addresses that are in use.", s.unknown)}
	}
	var warnings, lost, unread []string // by host end, as the kernel lists them
	var why error
	for _, p := range s.ports {
		switch {
		case p.Delegated:
		case p.Err != nil:
			unread, why = append(unread, p.Name), p.Err
		default:
			lost = append(lost, fmt.Sprintf("%s (%s)", p.Name, addresses(p.Addrs)))
		}
	}
	if len(lost) > 0 {
		warnings = append(warnings, fmt.Sprintf("Pods run here whose leases are not known, %d of them, as ipam.db was moved away or lost, or their space was "+
			"reclaimed: %s. Delete them and start them again, or \"weft attach\" their namespaces again under their names; what they have is kept "+
			"for them meanwhile.", len(lost), shortList(lost)))
	}
	if len(unread) > 0 {
		warnings = append(warnings, fmt.Sprintf("Pods run here whose leases and addresses are not known, %d of them (%v): %s. Delete them before new ones start "+
			"here, as these may get the same addresses.", len(unread), why, shortList(unread)))
	}
	return append(warnings, d.strayWarnings(s)...)
}

// strayWarnings tells of addresses in use that are others' to give out.
func (d *Daemon) strayWarnings(s *orphanSurvey) []string {
	var warnings []string
	for _, p := range s.ports {
		for _, a := range p.Addrs {
			err := s.failed[a]
			if err == nil || len(warnings) == orphansTold {
				continue
			}
			mend := "Delete that pod and start it again."
			if p.Delegated {
				mend = "Have its IPAM plugin give out addresses outside of " + ranges(d.cfg.Ranges) + "."
			}
			warnings = append(warnings, fmt.Sprintf("The pod behind %s has the address %s, which is node %s's to give out, and may be given to another: %v. %s",
				p.Name, a, d.ownerName(a), err, mend))
		}
	}
	for _, a := range s.bridge {
		if id, known := d.ipam.OwnerOf(a); known && id != d.identity.ID {
			warnings = append(warnings, fmt.Sprintf("The bridge %s has the address %s, which is node %s's to give out, and may be given to a pod. Take it away with "+
				"\"weft hide\", and start the pods of this node again: it is their gateway.", d.cfg.Bridge, a, d.ownerName(a)))
		}
	}
	return warnings
}

// ownerName returns what people call the node that gives out an address.
func (d *Daemon) ownerName(a netip.Addr) string {
	id, known := d.ipam.OwnerOf(a)
	if !known {
		return "an unknown"
	}
	if name := d.nodeName(id); name != "" {
		return name
	}
	return id.String()
}

func addresses(list []netip.Addr) string {
	texts := make([]string, len(list))
	for i, a := range list {
		texts[i] = a.String()
	}
	return strings.Join(texts, " and ")
}
