package leases

import (
	"cmp"
	"context"
	"errors"
	"time"

	"weft/internal/api"
	"weft/internal/guard"
	"weft/internal/hint"
	"weft/internal/hostnet"
	"weft/internal/leases/holder"
	"weft/internal/podlink"
)

// Guards are the ports of pods, and what each may send. Methods may be called from any goroutine and must not call the Manager.
type Guards interface {
	// SetGuard sets what a port may send, whether its interface exists or not. It returns once that is in force, or a *hint.Error.
	SetGuard(context.Context, guard.Entry) error
	// EndGuard removes the entry of a port after its interface is gone. A port without one is success.
	EndGuard(ctx context.Context, link string) error
	// Guard returns the entry of a port.
	Guard(link string) (guard.Entry, bool)
	// Guards returns all entries.
	Guards() []guard.Entry
}

// Guard sets what the port of a container may send. Without a MAC, the container must run; without an owner, it is the one that has
// the addresses.
func (m *Manager) Guard(ctx context.Context, in api.GuardRequest) error {
	h, err := m.guardHolder(in)
	if err != nil {
		return err
	}
	link, ok := h.HostLink()
	if !ok {
		return hint.New(hint.Invalid, "Name the owner of an attachment, as \"weft ip list\" shows it.", "%q is no attachment", in.Owner)
	}
	if in.MAC.IsZero() {
		e, known := m.cfg.Guards.Guard(link)
		if !known {
			return m.guardUnknown(ctx, h, guard.Entry{Mode: cmp.Or(in.Guard, m.cfg.Guard), Port: guard.Port{Allow: in.Allow}})
		}
		e.Mode = cmp.Or(in.Guard, e.Mode)
		e.Allow = in.Allow
		return m.cfg.Guards.SetGuard(ctx, e)
	}
	port := guard.Port{Link: link, MAC: in.MAC, Addrs: in.IPs, Allow: in.Allow, Subnets: in.Subnets, HostOnly: in.HostOnly}
	return m.setGuard(ctx, h, port, in.Guard)
}

// guardHolder returns the holder that a request is for.
func (m *Manager) guardHolder(in api.GuardRequest) (holder.Holder, error) {
	if in.Owner != "" || !in.MAC.IsZero() {
		return clientHolder(in.Owner)
	}
	h, leased := m.holderOf(in.IPs)
	if !leased {
		return h, hint.New(hint.NotFound, "Name the owner.", "no container has one of the addresses %v", in.IPs)
	}
	return h, nil
}

// setGuard sets what the port of an attachment may send: as requested, else as before while its interface exists, else as this node does.
func (m *Manager) setGuard(ctx context.Context, h holder.Holder, port guard.Port, requested api.GuardMode) error {
	e := guard.Entry{Port: port, Owner: h.String(), Mode: cmp.Or(requested, m.cfg.Guard)}
	before, known := m.cfg.Guards.Guard(port.Link)
	switch {
	case requested != "":
	case known && hostnet.LinkExists(port.Link):
		e.Mode = before.Mode
		if len(e.Allow) == 0 {
			e.Allow = before.Allow
		}
	case e.Mode != api.GuardPods && len(e.Subnets) == 0 && !known:
		return nil // nothing has to be known about it
	case !known && len(e.Allow)+len(e.Subnets) == 0 && hostnet.LinkExists(port.Link):
		return m.guardAgain(ctx, h, guard.Entry{Mode: e.Mode})
	}
	return m.cfg.Guards.SetGuard(ctx, e)
}

// attachGuard sets what the pair of an attachment may send, before it is made.
func (m *Manager) attachGuard(ctx context.Context, h holder.Holder, in api.AttachRequest, spec podlink.Spec) error {
	port := guard.Port{Link: spec.HostName, MAC: spec.PodMAC(), Allow: in.Allow, Subnets: m.separated(in)}
	for _, a := range spec.Addresses {
		port.Addrs = append(port.Addrs, a.Prefix.Addr())
	}
	return m.setGuard(ctx, h, port, in.Guard)
}

// Unguard ends the guard of a container after its interface is gone.
func (m *Manager) Unguard(ctx context.Context, owner string) error {
	h, err := clientHolder(owner)
	if err != nil {
		return err
	}
	return m.endGuards(ctx, h)
}

// endGuards ends the guards of the ports of h that are gone. A port that exists keeps its guard, whatever its lease does.
func (m *Manager) endGuards(ctx context.Context, h holder.Holder) error {
	var errs []error
	for _, link := range h.PossibleLinks() {
		if !hostnet.LinkExists(link) {
			errs = append(errs, m.cfg.Guards.EndGuard(ctx, link))
		}
	}
	return errors.Join(errs...)
}

// staleGuards finds guards of ports that nothing ended. Its zero value is ready.
type staleGuards struct {
	missing map[string]time.Time // when a port was first missing
}

// collect returns the ports that have been missing for the time grace at now.
func (s *staleGuards) collect(entries []guard.Entry, exists func(link string) bool, now time.Time, grace time.Duration) (ended []string) {
	missing := make(map[string]time.Time)
	for _, e := range entries {
		if exists(e.Link) {
			continue
		}
		since, known := s.missing[e.Link]
		if !known {
			since = now
		}
		missing[e.Link] = since
		if now.Sub(since) >= grace {
			ended = append(ended, e.Link)
		}
	}
	s.missing = missing
	return ended
}

// collectGuards ends the guards of ports that are gone for long.
func (m *Manager) collectGuards(ctx context.Context, s *staleGuards) {
	for _, link := range s.collect(m.cfg.Guards.Guards(), hostnet.LinkExists, time.Now(), m.cfg.Grace) {
		if err := m.cfg.Guards.EndGuard(ctx, link); err != nil {
			m.log.Warn("cannot end the guard of a port that is gone", "port", link, "err", err)
		}
	}
}

// hardenPort keeps the host off a new port. Where the settings are read-only, the rules of the guard have the same effect.
func (m *Manager) hardenPort(name string) {
	if err := guard.HardenPort(name); err != nil {
		m.log.Debug("cannot change the settings of a port", "port", name, "err", err)
	}
}
