// Package node assembles one node: it makes the engines and the parts of the host in order, hands each what it needs, runs them,
// and stops them. It is the only package that sees them all.
//
//	build.go       makes all parts, in the order of their dependencies
//	underlay.go    the address and the MTU of the host, which may change while the node runs
//	membership.go  the cluster as the other parts see it
//	events.go      what engines report, handled by one goroutine
//	documents.go   what the read commands show
//	cluster.go     connect, forget, reclaim, leave
//	reload.go      configuration and secrets that change while the node runs
//	findings.go    what is wrong with the cluster, for the status
//
// No part has a pointer to the node, and nothing is connected after a part was made: a part gets the parts below it by New, and
// reports to the ones above through channels.
//
// See docs/adr/0027-node-taken-apart.md.
package node

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/doctor"
	"weft/internal/hint"
	"weft/internal/hostnet"
	"weft/internal/settings"
	"weft/internal/statedir"
	"weft/mesh"
)

// clusterName is the name of the network in the handshake: nodes of another one make no session.
const clusterName = "weft"

// joinPatience is how long the datapath waits for the first attempts to join: long enough to learn that another node runs with
// this node's key before it carries any frame.
const joinPatience = 3 * time.Second

// Run runs a node until ctx ends, which leaves bridge, pods and addresses as they are, or until the node has left the network. If
// it does not start because of its configuration or the host, the error is a *hint.Error of kind Usage and the host is unchanged.
func Run(ctx context.Context, cfg settings.Config, process Process) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if cfg.TakeOver {
		release, err := takeOver(ctx, cfg.Socket)
		if ctx.Err() != nil {
			return nil // stopped while it waited
		} else if err != nil {
			return err
		}
		defer release()
		process.Log.Info("acquired the take-over lock: no other daemon runs on this host")
	}
	if err := doctor.Preflight(context.WithoutCancel(ctx), cfg); err != nil { // a cancellation would change its results
		return err
	}
	creds, err := loadCredentials(&cfg)
	if err != nil {
		return err
	}
	if err := statedir.CheckSealed(cfg.StateDir, cfg.Protected(), cfg.Plain); err != nil {
		return err
	}
	advertise, err := cfg.AdvertiseAddr(ctx)
	if err != nil {
		return err
	}
	if local, err := hostnet.IsLocal(advertise); err == nil && !local {
		process.Log.Warn("no interface of this host has the address of --advertise: that is correct behind a NAT that forwards the ports "+
			"to this host; otherwise no node reaches this one", "addr", advertise)
	}
	st, err := openState(cfg.StateDir, cfg.ProtectedBy())
	if err != nil {
		return err
	}
	if err := creds.check(st.identity, cfg.Name, advertise, time.Now()); err != nil {
		return errors.Join(err, st.addresses.Close())
	}
	limitGarbage()
	if err := raisePriority(); err != nil {
		process.Log.Info("the node runs at the priority of pods: busy pods may delay the network", "err", err)
	}
	n, err := build(cfg, process, creds, advertise, st)
	if err != nil {
		return errors.Join(err, st.addresses.Close())
	}
	err = n.run(ctx)
	return errors.Join(err, st.addresses.Close())
}

// run runs all parts until ctx ends, one of them fails, or the node has left.
func (n *node) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if err := n.datapath.Prepare(ctx); err != nil {
		return errors.Join(err, n.closeListeners())
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.mesh.Run(ctx) })
	group.Go(func() error { return n.ipam.Run(ctx) })
	group.Go(func() error { return n.runDatapath(ctx) })
	if n.dns != nil {
		group.Go(func() error { return n.dns.Run(ctx) })
	}
	group.Go(func() error { return n.server.Run(ctx) })
	for _, part := range []func(context.Context){
		n.handleEvents, n.health.Run, n.underlay.run, n.reloader.watchSignal, n.reloader.watchFiles, n.notifyServiceManager,
		n.releaseStartup,
	} {
		group.Go(func() error { part(ctx); return nil })
	}
	group.Go(func() error { // ends the others when the node has left
		select {
		case <-ctx.Done():
		case <-n.left:
			stop()
		}
		return nil
	})
	n.log.Info("node is up", "peer", n.identity.ID, "name", n.cfg.Name, "addr", n.advertise, "mtu", n.mtu)
	err := group.Wait()
	n.log.Info("node is down", "peer", n.identity.ID)
	if errors.Is(err, mesh.ErrDuplicateKey) {
		return hint.Refuse(n.cfg.StateDir, "If this is a copied disk, remove node.key and ipam.db from the copy and start it again: it then "+
			"is a node of its own.", "%w", err)
	}
	return err
}

// runDatapath brings the datapath up once the node has tried to join, and runs it with the leases of its pods until ctx ends.
func (n *node) runDatapath(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return errors.Join(n.datapath.Close())
	case <-n.mesh.Joined():
	case <-time.After(joinPatience):
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.datapath.Run(ctx) })
	group.Go(func() error {
		select {
		case <-ctx.Done():
		case <-n.datapath.Started():
			n.leases.Run(ctx)
		}
		return nil
	})
	group.Go(func() error {
		select {
		case <-ctx.Done():
		case <-n.datapath.Started():
			n.hostCheck.Run(ctx)
		}
		return nil
	})
	return group.Wait()
}
