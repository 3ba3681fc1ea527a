package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"weft/internal/datapath"
	"weft/internal/health"
	"weft/internal/hostnet"
	"weft/internal/hostwatch"
	"weft/internal/settings"
	"weft/mesh"
	"weft/router/wire"
)

const (
	// underlayPeriod is how often the host's addresses are read although no change is reported.
	underlayPeriod = 30 * time.Second
	// underlayPause is the shortest time between two looks: another program may change addresses all the time.
	underlayPause = 200 * time.Millisecond
)

// underlayFollower makes mesh and datapath follow the address of this node and the MTU of its interface. It implements health.Source
// and health.Requirement.
// See docs/adr/0035-follow-the-underlay.md.
type underlayFollower struct {
	// constant
	cfg      settings.Config
	sealed   bool
	mesh     *mesh.Mesh
	datapath *datapath.Datapath
	log      *slog.Logger

	follower *hostnet.Follower            // owned by run
	latest   atomic.Pointer[hostnet.Step] // never nil
}

// newUnderlayFollower returns a follower of addr, the address of the start.
func newUnderlayFollower(
	cfg settings.Config, addr netip.Addr, sealed bool, m *mesh.Mesh, d *datapath.Datapath, log *slog.Logger,
) *underlayFollower {
	u := &underlayFollower{
		cfg: cfg, sealed: sealed, mesh: m, datapath: d, log: log, follower: hostnet.NewFollower(addr, cfg.Advertise.IsValid()),
	}
	u.latest.Store(&hostnet.Step{Addr: addr})
	return u
}

// addr returns the address at which the other nodes reach this one.
func (u *underlayFollower) addr() netip.Addr { return u.latest.Load().Addr }

// run follows changes until ctx ends.
func (u *underlayFollower) run(ctx context.Context) {
	var changed <-chan struct{} // nil: never
	watcher, err := hostwatch.Open(hostwatch.Addresses | hostwatch.Links | hostwatch.Routes)
	if err != nil {
		u.log.Warn("changes of this host's addresses are noticed late", "err", err)
	} else {
		changed = watcher.Changed()
		ended := make(chan struct{})
		defer func() { <-ended }()
		go func() {
			defer close(ended)
			if err := watcher.Run(ctx); err != nil {
				u.log.Warn("changes of this host's addresses are noticed late", "err", err)
			}
		}()
	}
	for {
		next := underlayPeriod
		if again, err := u.look(ctx); err != nil {
			u.log.Warn("cannot read the addresses of this host", "err", err)
		} else if again > 0 {
			next = max(again, underlayPause)
		}
		if !sleep(ctx, underlayPause) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(next - underlayPause):
		}
	}
}

// sleep waits for d, and reports whether ctx has not ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// look reads the host's addresses and follows them. again is after what time to look again; 0: when something changes.
func (u *underlayFollower) look(ctx context.Context) (again time.Duration, err error) {
	list, err := hostnet.Addresses()
	if err != nil {
		return 0, err
	}
	candidate := netip.Addr{}
	if u.follower.Wants(list) {
		skip := hostnet.Skip{Bridge: u.cfg.Bridge, Ranges: u.cfg.Ranges}
		candidate, _ = hostnet.Candidate(ctx, list, u.peers(), skip, u.follower.Link())
	}
	u.follow(u.follower.Observe(list, candidate, time.Now()))
	return u.latest.Load().Again, nil
}

// peers returns the gossip addresses of the other members, those that are alive first.
func (u *underlayFollower) peers() (addrs []netip.AddrPort) {
	for _, alive := range []bool{true, false} {
		for _, m := range u.mesh.Members() {
			if !m.Self && (m.State == mesh.StateAlive) == alive {
				addrs = append(addrs, m.GossipAddr())
			}
		}
	}
	return addrs
}

// follow applies a decision.
func (u *underlayFollower) follow(s hostnet.Step) {
	before := u.latest.Swap(&s)
	if s.Missing && !before.Missing {
		u.log.Warn("this host does not have its address on the underlay any more", "addr", s.Addr)
	}
	mtu := max(u.cfg.OverlayMTUOn(s.MTU, s.Addr, u.sealed), u.cfg.MinOverlayMTU())
	if s.Addr != before.Addr {
		u.log.Info("following a change of this host's address", "addr", s.Addr, "mtu", mtu)
	}
	u.datapath.SetUnderlay(datapath.Underlay{Addr: s.Addr, Local: s.Local, MTU: mtu})
	if s.Addr != before.Addr {
		u.mesh.SetAdvertise(netip.AddrPortFrom(s.Addr, uint16(u.cfg.Port)))
	}
}

// Missing implements health.Requirement.
func (u *underlayFollower) Missing() string {
	if s := u.latest.Load(); s.Missing {
		return fmt.Sprintf("the address %s was removed from this host, or its interface is down", s.Addr)
	}
	return ""
}

// Findings implements health.Source.
func (u *underlayFollower) Findings() []health.Finding {
	s := u.latest.Load()
	findings := u.missingFindings(s)
	if hostnet.LinkOf(s.Addr) == "" { // behind a NAT, the interface with the address is on another device
		return findings
	}
	return append(findings, mtuFindings(u.cfg.MTU, s, u.sealed)...)
}

// mtuFindings reports an MTU that was set, configured if it is not 0, and that the underlay does not take.
func mtuFindings(configured int, s *hostnet.Step, sealed bool) []health.Finding {
	fits := wire.MTU(s.MTU, sealed, s.Addr.Is6())
	if configured == 0 || s.MTU == 0 || configured <= fits {
		return nil
	}
	return []health.Finding{{
		Code: health.MTUTooLarge,
		Text: fmt.Sprintf("--mtu %d does not fit the underlay: its MTU of %d leaves %d for pods. Longer packets are lost or fragmented.",
			configured, s.MTU, fits),
		Remedy: fmt.Sprintf("Start this node with --mtu %d or less, or 0 for the largest that fits, or raise the MTU of the underlay.", fits),
	}}
}

// missingFindings reports that this node has no address on the underlay.
func (u *underlayFollower) missingFindings(s *hostnet.Step) []health.Finding {
	if !s.Missing {
		return nil
	}
	f := health.Finding{
		Code: health.AddressMissing,
		Text: fmt.Sprintf("The address %s was removed from this host, or its interface is down, and there is no other address on the "+
			"underlay: no node reaches this one.", s.Addr),
		Remedy: "Check the link and the DHCP client. The node follows the next address by itself.",
	}
	if u.cfg.Advertise.IsValid() {
		f.Text = fmt.Sprintf("The address %s of --advertise was removed from this host, or its interface is down: no node reaches this one.",
			s.Addr)
		f.Remedy = "Give the address back to the host, or start the node with another --advertise, or without one."
	}
	return []health.Finding{f}
}
