package daemon

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"weft/cni"
	"weft/internal/podlink"
	"weft/ipam"
)

// orphanPrefix starts the owners of leases of pods that run while nobody knows whose lease theirs was: ipam.db was moved away or
// lost, or what this node owned was reclaimed. The name of the host end follows.
const orphanPrefix = reservedPrefix + "orphan/"

// How often orphans are looked for: seldom where there are none, often while there are, so that what they had is free again soon.
const (
	orphansSeldom = 15 * time.Second
	orphansOften  = 2 * time.Second
)

// orphanAddresses bounds how many addresses of one pod are held: it may be allowed to give itself any.
const orphanAddresses = 16

// orphans keeps the addresses of pods whose leases are not known from being given to others.
type orphans struct {
	d    *Daemon
	wake chan struct{} // of capacity 1: a range has been divided

	mu     sync.Mutex                   // serialises look, and what takes the bridge's addresses away
	asked  map[netip.Addr]asked         // guarded by mu: what was asked for lately
	latest atomic.Pointer[orphanSurvey] // what is known of them; nil before the first look
}

// orphanSurvey is what a look has found. It is not changed.
type orphanSurvey struct {
	ports   []podlink.Port       // orphans, with their addresses inside the ranges
	bridge  []netip.Addr         // of the bridge itself, as far as nobody had leased them
	failed  map[netip.Addr]error // why an address is not leased here, where other nodes were asked
	unknown error                // why nothing is known
}

// isLost reports whether an orphan had a lease that is lost; those of other address managers never had one.
func isLost(p podlink.Port) bool { return !p.Delegated }

// pairsOf returns the names of the host ends that may belong to an owner.
func pairsOf(owner string) []string {
	names := []string{hostLink(owner)}
	if _, _, ifname, ok := cni.ParseHolder(owner); ok {
		names = append(names, podlink.HostLinkName(owner, ifname))
	}
	return names
}

// orphansAmong returns those of ports that no lease is for, and the host ends of leases of orphans that are gone, as none of there
// has their names.
func orphansAmong(ports []podlink.Port, leases []ipam.Lease, there func(name string) bool) (orphans []podlink.Port, gone []string) {
	leased := make(map[string]bool)
	for _, l := range leases {
		if name, ok := strings.CutPrefix(l.Holder, orphanPrefix); ok {
			if !slices.Contains(gone, name) && !there(name) {
				gone = append(gone, name)
			}
			continue
		}
		for _, name := range pairsOf(l.Holder) {
			leased[name] = true
		}
	}
	for _, p := range ports {
		if !leased[p.Name] {
			orphans = append(orphans, p)
		}
	}
	return orphans, gone
}

// look finds the orphans, has their addresses held, and ends what was held for those that are gone. It asks no other node.
//
// The order of its steps is what tells an orphan from a pod that is coming or going: a lease is there before its pair is made, and until
// after its pair is gone. So a pair that is there before the leases are read and after, and has none, has none for good.
func (o *orphans) look() {
	o.mu.Lock()
	defer o.mu.Unlock()
	survey, held, err := o.survey()
	if err == nil {
		err = o.d.ipam.Hold(held)
	}
	if err != nil {
		if last := o.latest.Load(); last == nil || last.unknown == nil { // once
			o.d.log.Warn("looking for pods whose leases are not known", "err", err)
		}
		survey = &orphanSurvey{unknown: err}
	}
	if last := o.latest.Load(); last != nil && survey.unknown == nil {
		survey.failed = last.failed
	}
	o.latest.Store(survey)
}

// survey returns what there is, and by owner what is to be held. It ends the leases of orphans that are gone. mu is held.
func (o *orphans) survey() (*orphanSurvey, map[netip.Addr]string, error) {
	ports, err := podlink.Ports(o.d.cfg.Bridge)
	if err != nil {
		return nil, nil, err
	}
	before, err := o.d.exposed()
	if err != nil {
		return nil, nil, err
	}
	leases := o.d.ipam.Leases()
	ports, gone := orphansAmong(ports, leases, linkExists)
	for _, name := range gone {
		o.end(name)
	}
	survey, held := &orphanSurvey{}, make(map[netip.Addr]string)
	for _, p := range ports {
		if !p.Look() {
			continue
		}
		p.Addrs = slices.DeleteFunc(p.Addrs, func(a netip.Addr) bool { return !o.d.cfg.inRanges(a) })
		p.Addrs = p.Addrs[:min(len(p.Addrs), orphanAddresses)]
		if len(p.Addrs) == 0 && p.Err == nil {
			continue // what it has is no address of the overlay
		}
		survey.ports = append(survey.ports, p)
		for _, a := range p.Addrs {
			held[a] = orphanPrefix + p.Name
		}
	}
	for _, p := range before {
		if !slices.ContainsFunc(leases, func(l ipam.Lease) bool { return l.Addr == p.Addr() }) {
			survey.bridge = append(survey.bridge, p.Addr())
			held[p.Addr()] = exposeOwner
		}
	}
	return survey, held, nil
}

// end ends the lease of an orphan that is gone.
func (o *orphans) end(name string) {
	if err := o.d.ipam.Release(orphanPrefix+name, netip.Addr{}); err != nil {
		if !errors.Is(err, ipam.ErrUnknownOwner) {
			o.d.log.Warn("ending the lease of a pod that is gone", "owner", orphanPrefix+name, "err", err)
		}
		return
	}
	o.d.garbageFreed.Add(1)
	o.d.log.Info("a lease has ended, as its pod is gone", "owner", orphanPrefix+name)
}

// gone ends the leases that were held for the pairs of owner, where these are gone, and reports whether there were any.
func (o *orphans) gone(owner string) (any bool) {
	for _, name := range pairsOf(owner) {
		if len(o.d.ipam.Lookup(orphanPrefix+name)) > 0 && !linkExists(name) {
			o.end(name)
			any = true
		}
	}
	return any
}

// handOver gives owner the leases that were held for its pair: who says its name again is known again.
func (o *orphans) handOver(owner string) error {
	for _, name := range pairsOf(owner) {
		err := o.d.ipam.Reassign(orphanPrefix+name, owner)
		if errors.Is(err, ipam.ErrUnknownOwner) {
			continue
		} else if err != nil {
			return ipamProblem(err)
		}
		o.d.log.Info("a pod is known again", "owner", owner, "link", name)
		o.again()
	}
	return nil
}

// held returns the leases that are held for owner's pairs.
func (o *orphans) held(owner string) (leases []ipam.Lease) {
	for _, name := range pairsOf(owner) {
		leases = append(leases, o.d.ipam.Lookup(orphanPrefix+name)...)
	}
	return leases
}

// again has run look again at once.
func (o *orphans) again() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// run looks for orphans from time to time, and asks other nodes for those of their addresses that these own, until ctx ends.
func (o *orphans) run(ctx context.Context) {
	for {
		o.look()
		o.claim(ctx)
		pause := orphansSeldom
		if slices.ContainsFunc(o.latest.Load().ports, isLost) {
			pause = orphansOften
		}
		select {
		case <-ctx.Done():
			return
		case <-o.wake:
		case <-time.After(pause):
		}
	}
}
