package docker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"weft/internal/dockerapi"
	"weft/internal/leases/holder"
)

// Run follows the engine until ctx ends: it publishes names of containers and networks, ends what is left of those that are gone, and
// starts containers that could not start while weft was away.
func (p *Plugin) Run(ctx context.Context) {
	if p.cfg.Engine == nil {
		return
	}
	go p.watch(ctx)
	tick := time.NewTicker(syncPeriod)
	defer tick.Stop()
	logged := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.changed.C():
		case <-tick.C:
		}
		err := p.sync(ctx)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != logged && ctx.Err() == nil {
			logged = text
			if err != nil {
				p.log.Warn("cannot compare with Docker, trying again", "err", err)
			} else {
				p.log.Info("compared with Docker")
			}
		}
		pause := syncPause
		if err != nil {
			pause = syncPeriod
			if isAway(err) || errors.Is(err, dockerapi.ErrNoEngine) {
				pause = enginePause
			}
			p.changed.Set()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// watch sets changed after each event of the engine.
func (p *Plugin) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := p.cfg.Engine.Watch(ctx, p.changed.Set)
		p.log.Debug("no events from Docker", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(enginePause):
		}
	}
}

// sync compares the engine with this plugin and with the daemon once.
func (p *Plugin) sync(ctx context.Context) error {
	networks, err := p.cfg.Engine.Networks(ctx)
	if err != nil {
		return err
	}
	status, err := p.cfg.Daemon.Status(ctx)
	if err != nil {
		return err
	}
	if err := p.syncNetworks(ctx, networks, status.ID); err != nil {
		return err
	}
	endpoints := p.state.endpoints() // before the containers: an endpoint that is new since then may belong to none of them
	containers, complete, err := p.containers(ctx, networks)
	if err != nil {
		return err
	}
	p.startFailed(ctx, containers)
	errs := []error{p.syncNames(ctx, containers, complete, status.ID), p.endUnused(ctx)}
	if p.noteComplete(complete, time.Now()); complete {
		errs = append(errs, p.forgetEndpoints(ctx, endpoints, containers))
	}
	return errors.Join(errs...)
}

// longSilence is how long Docker may not answer for a container before the log says so.
const longSilence = 5 * time.Minute

// noteComplete logs once that Docker has not answered for a container for a long time: what containers leave behind stays meanwhile.
func (p *Plugin) noteComplete(complete bool, now time.Time) {
	switch {
	case complete:
		p.silentSince, p.silentLogged = time.Time{}, false
	case p.silentSince.IsZero():
		p.silentSince = now
	case now.Sub(p.silentSince) >= longSilence && !p.silentLogged:
		p.silentLogged = true
		p.log.Warn("Docker has not answered for a container for minutes, as \"docker inspect\" does not: names and interfaces that other "+
			"containers leave behind stay until it does", "since", p.silentSince)
	}
}

// inspectTime bounds a look at one container: Docker does not answer while it starts it, which may wait for weft.
const inspectTime = 2 * time.Second

// containers returns the containers of the networks of this host, whether they run or not. Not complete: Docker does not say anything about
// some of them now, and what they have must stay.
func (p *Plugin) containers(ctx context.Context, networks []dockerapi.Network) (list []dockerapi.Container, complete bool, err error) {
	complete = true
	var ids []string
	for _, n := range networks {
		if p.ours(n.ID) {
			ids = append(ids, n.ID)
		}
	}
	if ids, err = p.cfg.Engine.ContainersOn(ctx, ids); err != nil {
		return nil, false, err
	}
	for _, id := range ids {
		c, err := p.inspect(ctx, id)
		switch {
		case errors.Is(err, dockerapi.ErrNotFound): // it was removed meanwhile
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			complete = false
			p.log.Debug("Docker does not answer for a container", "container", id)
			p.changed.Set() // the next comparison has it
		case err != nil:
			return nil, false, err
		default:
			list = append(list, c)
		}
	}
	return list, complete, nil
}

// inspect returns a container, within inspectTime.
func (p *Plugin) inspect(ctx context.Context, id string) (dockerapi.Container, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectTime)
	defer cancel()
	return p.cfg.Engine.Container(ctx, id)
}

// endUnused ends leases of endpoints and networks that are gone, as after a crash of Docker in the middle of a start.
func (p *Plugin) endUnused(ctx context.Context) error {
	leases, err := p.cfg.Daemon.Leases(ctx, "")
	if err != nil {
		return err
	}
	subnets := map[string]bool{}
	for _, n := range p.state.networks() {
		for _, s := range n.Subnets {
			subnets[s.String()] = true
		}
	}
	var errs []error
	for _, l := range leases {
		unused, addr := p.isUnused(l, time.Now()), "" // all of an endpoint: this ends its guard as well
		for _, prefix := range []string{gatewayPrefix, auxPrefix} {
			if subnet, ok := strings.CutPrefix(l.Owner, prefix); ok {
				unused, addr = !subnets[subnet] && time.Since(l.Since) > newNetwork, l.IP.Addr().String()
			}
		}
		if !unused {
			continue
		}
		err := ignoreNotFound(p.cfg.Daemon.Release(ctx, l.Owner, addr))
		if err == nil {
			p.log.Info("ended a lease that Docker does not need any more", "owner", l.Owner, "addr", l.IP.Addr())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// forgetEndpoints forgets those endpoints that no container has: those without an interface, and those with one that never reached a
// container, as after a crash of Docker between two requests.
func (p *Plugin) forgetEndpoints(ctx context.Context, endpoints []endpoint, containers []dockerapi.Container) error {
	known := map[string]bool{}
	for _, c := range containers {
		for _, e := range c.Endpoints {
			known[e.ID] = true
		}
	}
	var errs []error
	for _, e := range endpoints {
		if !known[e.ID] && time.Since(e.Created) >= unusedAge {
			errs = append(errs, p.forgetEndpoint(ctx, e))
		}
	}
	return errors.Join(errs...)
}

// forgetEndpoint forgets an endpoint that no container has, unless it has reached a container. Meanwhile Docker may have replaced it by
// another one with its MAC, which has its interface and its leases then.
func (p *Plugin) forgetEndpoint(ctx context.Context, e endpoint) error {
	if p.busy.has(e.MAC) {
		return nil // the next comparison sees what becomes of it
	}
	end, free := p.busy.begin(e.MAC)
	if !free {
		return nil
	}
	defer end()
	if now, there := p.state.endpoint(e.ID); !there || !now.Created.Equal(e.Created) {
		return nil
	}
	if slices.ContainsFunc(p.state.endpoints(), func(o endpoint) bool { return o.ID != e.ID && o.MAC == e.MAC }) {
		return p.state.deleteEndpoint(e.ID)
	}
	if p.cfg.Links.Exists(holder.ForDocker(e.MAC).AttachLink()) && !p.cfg.Links.Exists(temporaryName(e.MAC)) {
		return nil // it is in a container
	}
	n, _ := p.state.network(e.Network)
	return p.disconnect(ctx, n, e)
}
