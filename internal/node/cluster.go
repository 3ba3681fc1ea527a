package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"weft/internal/api"
	"weft/internal/controlplane"
	"weft/internal/datapath"
	"weft/internal/health"
	"weft/internal/hint"
	"weft/internal/hostcheck"
	"weft/internal/leases"
	"weft/internal/peer"
	"weft/internal/suggest"
	"weft/internal/target"
	"weft/ipam"
	"weft/mesh"
)

// leaveGrace is how long the node runs on after it has answered "weft leave": long enough to send the answer.
const leaveGrace = 200 * time.Millisecond

// cluster changes this node's part in the network. It implements apiserver.Cluster.
type cluster struct {
	self     peer.ID
	port     uint16 // default of targets
	mesh     *mesh.Mesh
	members  *controlplane.Members
	ipam     *ipam.Allocator
	names    names
	leases   *leases.Manager
	datapath *datapath.Datapath
	// hostCheck has published ports of containers, which end with the node.
	hostCheck *hostcheck.Checker
	*reloader
	left *sync.Once
	stop chan<- struct{} // closed when the node has left
	log  *slog.Logger
}

func (n *node) cluster() *cluster {
	return &cluster{
		self: n.identity.ID, port: uint16(n.cfg.Port), mesh: n.mesh, members: n.members, ipam: n.ipam, names: names{n.registry, n.cfg, n.members},
		leases: n.leases, datapath: n.datapath, hostCheck: n.hostCheck, reloader: n.reloader, left: &n.leftOnce, stop: n.left, log: n.log,
	}
}

// Connect implements apiserver.Cluster.
func (c *cluster) Connect(list []string, replace bool) error {
	targets, err := c.parseTargets(list)
	if err != nil {
		return err
	}
	return c.mesh.Connect(targets, replace)
}

// Forget implements apiserver.Cluster.
func (c *cluster) Forget(list []string) error {
	targets, err := c.parseTargets(list)
	if err != nil {
		return err
	}
	var known []string
	for _, t := range c.mesh.TargetStatus() {
		known = append(known, t.Target.String())
	}
	for i, t := range targets {
		if !slices.Contains(known, t.String()) {
			return errNoTarget(list[i], t, known)
		}
	}
	return c.mesh.Disconnect(targets)
}

// errNoTarget is the error about a target, written as text, that is none of the known ones.
func errNoTarget(text string, t target.Target, known []string) error {
	advice := "This node has no targets."
	if len(known) > 0 {
		advice = "This node dials " + health.List(known) + "."
	}
	if near, ok := suggest.Nearest(t.String(), known); ok {
		advice = fmt.Sprintf("Did you mean %s? ", near) + advice
	}
	return hint.New(hint.NotFound, advice, "%q is not a target of this node", text)
}

func (c *cluster) parseTargets(list []string) ([]target.Target, error) {
	targets := make([]target.Target, 0, len(list))
	for _, s := range list {
		t, err := target.Parse(s, c.port)
		if err != nil {
			advice := ""
			if e, ok := errors.AsType[*target.Error](err); ok {
				advice = e.Fix
			}
			return nil, hint.New(hint.Invalid, advice, "%w", err)
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// Alive implements apiserver.Cluster.
func (c *cluster) Alive() int {
	alive := 0
	for _, m := range c.mesh.Members() {
		if m.State == mesh.StateAlive {
			alive++
		}
	}
	return alive
}

// Bootstrap implements apiserver.Cluster.
func (c *cluster) Bootstrap() error { return leases.Explain(c.ipam.RequestBootstrap()) }

// Reclaim implements apiserver.Cluster: it takes over the address space of dead nodes, each named by ID or nickname.
func (c *cluster) Reclaim(ctx context.Context, list []string) ([]api.Reclaimed, error) {
	if len(list) == 0 {
		return nil, hint.New(hint.Invalid, "Name a node by its ID or its nickname.", "no node is named")
	}
	var dead []peer.ID
	for _, name := range list {
		id, err := c.deadNode(name)
		if err != nil {
			return nil, err
		}
		dead = append(dead, id)
	}
	results, err := c.ipam.Reclaim(ctx, dead...)
	if err != nil {
		return nil, leases.Explain(err)
	}
	for _, id := range dead {
		c.forgetNode(id)
	}
	docs := []api.Reclaimed{}
	for _, r := range results {
		docs = append(docs, api.Reclaimed{
			Peer: r.Dead, Name: c.members.NodeName(r.Dead), Range: r.Range, GivenTo: r.NewOwner, GivenToName: c.members.NodeName(r.NewOwner),
			Addresses: r.Addresses,
		})
	}
	return docs, nil
}

// forgetNode removes a dead node that owns no addresses any more from the members, and its names.
func (c *cluster) forgetNode(id peer.ID) {
	c.names.registry.Forget(id)
	if ownsAddresses(c.ipam.Status(), id) {
		return
	}
	if err := c.mesh.Forget(id); err != nil {
		c.log.Warn("cannot forget a dead node", "peer", id, "err", err)
	}
}

// deadNode returns the ID of a node that the operator declares dead, by ID or name. It refuses a live node; if a live and a dead
// node have the same name, the dead one is meant.
func (c *cluster) deadNode(name string) (peer.ID, error) {
	if id, err := peer.ParseID(name); err == nil {
		if m, known := c.members.Member(id); known && m.State == mesh.StateAlive {
			return peer.ID{}, errAlive(m)
		}
		return id, nil
	}
	status := c.ipam.Status()
	return deadNamed(c.mesh.Members(), name, func(id peer.ID) bool { return ownsAddresses(status, id) })
}

// deadNamed returns the dead node with a name; of several, the one that owns addresses.
func deadNamed(members []mesh.Member, name string, owns func(peer.ID) bool) (peer.ID, error) {
	var found []mesh.Member
	var alive *mesh.Member
	for _, m := range members {
		switch {
		case m.Name != name:
		case m.State == mesh.StateAlive:
			alive = &m
		default:
			found = append(found, m)
		}
	}
	if owners := slices.DeleteFunc(slices.Clone(found), func(m mesh.Member) bool { return !owns(m.ID) }); len(owners) > 0 {
		found = owners
	}
	switch {
	case len(found) == 1:
		return found[0].ID, nil
	case len(found) > 1:
		return peer.ID{}, hint.New(hint.Invalid, "Give the ID; \"weft ipam\" and \"weft peers\" show it.", "%d dead nodes have the name %q",
			len(found), name)
	case alive != nil:
		return peer.ID{}, errAlive(*alive)
	}
	var names []string
	for _, m := range members {
		if m.State != mesh.StateAlive {
			names = append(names, m.Name)
		}
	}
	advice := "Give the ID; \"weft ipam\" shows which nodes own addresses."
	if near, ok := suggest.Nearest(name, names); ok {
		advice = "Did you mean " + near + "? " + advice
	}
	return peer.ID{}, hint.New(hint.NotFound, advice, "no node has the name %q", name)
}

func errAlive(m mesh.Member) error {
	return hint.New(hint.Refused, "Run \"weft leave\" there, or stop it first.", "node %s (%s) is alive", m.Name, m.ID)
}

// Leave implements apiserver.Cluster: it hands the node's address space over, takes the host off the overlay, says goodbye to the
// other nodes, and stops the node a moment later.
func (c *cluster) Leave(ctx context.Context) (api.LeaveResult, error) {
	if !c.datapath.Up() {
		return api.LeaveResult{}, hint.New(hint.Starting, "Try again in a moment, or run \"weft wait\" first.", "the node is still starting")
	}
	newOwner, released, err := c.ipam.Leave(ctx)
	if err != nil {
		return api.LeaveResult{}, leases.Explain(err)
	}
	for _, step := range []struct {
		failure string
		run     func() error
	}{
		{"cannot remove this node's names", func() error { return c.names.removeOwn() }},
		{"cannot remove the addresses of the bridge", c.leases.HideAlways},
		{"cannot remove the ports of containers", func() error { return c.hostCheck.Clear(ctx) }},
		{"cannot take the host off the overlay", func() error { return c.datapath.Clear(ctx) }},
		{"cannot say goodbye to the other nodes", c.mesh.Leave},
	} {
		if err := step.run(); err != nil {
			c.log.Warn(step.failure, "err", err)
		}
	}
	c.log.Info("left the network", "peer", c.self)
	time.AfterFunc(leaveGrace, func() { c.left.Do(func() { close(c.stop) }) })
	return api.LeaveResult{Released: released, GivenTo: newOwner, Name: c.members.NodeName(newOwner)}, nil
}
