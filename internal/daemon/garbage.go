package daemon

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/cni"
	"weft/internal/podlink"
	"weft/ipam"
)

// DefaultLeaseGrace is how long the pair of an attachment may be gone until its lease ends: runtimes restart pods after a
// reboot, and plugins delete what they have added, in less.
const DefaultLeaseGrace = 5 * time.Minute

// garbage finds leases of attachments that are no more: whose namespace was deleted, or the host restarted, and nobody
// said so. The leases that an operator has asked for by name are not among them: what they are for nobody else knows.
type garbage struct {
	missing map[string]time.Time // owners whose pair is gone, and since when
}

// hostLinkOf returns the name of the host end of the pair that an owner's lease is for; ok is false for leases of others.
func hostLinkOf(owner string) (name string, ok bool) {
	if strings.HasPrefix(owner, attachPrefix) {
		return hostLink(owner), true
	}
	if _, _, ifname, ok := cni.ParseHolder(owner); ok {
		return podlink.HostLinkName(owner, ifname), true
	}
	return "", false
}

// collect returns the owners whose leases end at now: those whose pair has been gone for grace, and containers of before the host was
// booted, which never come back under their names. exists reports whether the host has an interface.
func (g *garbage) collect(leases []ipam.Lease, exists func(name string) bool, now, booted time.Time, grace time.Duration) (gone []string) {
	missing := make(map[string]time.Time)
	for _, l := range leases {
		name, ok := hostLinkOf(l.Holder)
		if _, done := missing[l.Holder]; !ok || done || exists(name) {
			continue
		}
		since, known := g.missing[l.Holder]
		if !known {
			since = now
		}
		missing[l.Holder] = since
		_, _, _, container := cni.ParseHolder(l.Holder)
		if container && l.Since.Before(booted) || now.Sub(since) >= grace && now.Sub(l.Since) >= grace {
			gone = append(gone, l.Holder)
		}
	}
	g.missing = missing
	return gone
}

// collectGarbage ends leases of attachments that are no more, until ctx ends.
func (p *plane) collectGarbage(ctx context.Context) {
	var g garbage
	grace := p.d.cfg.LeaseGrace
	if grace == 0 {
		grace = DefaultLeaseGrace
	}
	booted := bootTime()
	tick := time.NewTicker(max(min(grace/5, time.Minute), time.Second))
	defer tick.Stop()
	for {
		p.drainDeletions()
		leases := p.d.ipam.Leases()
		for _, owner := range g.collect(leases, linkExists, time.Now(), booted, grace) {
			if err := p.d.release(owner, netip.Addr{}); err != nil && !errors.Is(err, ipam.ErrUnknownOwner) {
				p.d.log.Warn("ending the lease of an attachment that is gone", "owner", owner, "err", err)
				continue
			}
			p.d.garbageFreed.Add(1)
			p.d.log.Info("a lease has ended, as its attachment is gone", "owner", owner, "grace", grace)
		}
		booted = time.Time{} // what was there at the start has been looked at; clocks may be set back
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// drainDeletions ends the leases of containers that were deleted while this node's daemon was away.
func (p *plane) drainDeletions() {
	n, err := cni.QueueOf(p.d.cfg.Socket).Drain(func(owner string) error {
		if err := p.d.release(owner, netip.Addr{}); !errors.Is(err, ipam.ErrUnknownOwner) {
			return err
		}
		return nil
	})
	if err != nil {
		p.d.log.Warn("ending leases of containers that were deleted while the daemon was away", "err", err)
	}
	if n > 0 {
		p.d.log.Info("leases have ended of containers that were deleted while the daemon was away", "containers", n)
	}
}

// bootMargin is how far the clock may have been off when the host was booted: what is younger waits for its grace.
const bootMargin = time.Minute

// bootTime returns when the host was booted, less a margin; the zero time where that cannot be told.
func bootTime() time.Time {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(info.Uptime)*time.Second - bootMargin)
}

// linkExists reports whether the host has an interface; where that cannot be told it has.
func linkExists(name string) bool {
	_, err := netlink.LinkByName(name)
	_, absent := errors.AsType[netlink.LinkNotFoundError](err)
	return !absent
}
