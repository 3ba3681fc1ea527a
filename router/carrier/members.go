package carrier

import (
	"cmp"
	"errors"
	"time"

	"weft/internal/ether"
)

// receiveProbe passes a probe to the path of its claimed sender, and sends the reply.
func (c *Controller) receiveProbe(p Probe, now time.Time) {
	m := c.members[p.From]
	if m == nil || p.To != c.cfg.Self {
		return
	}
	reply, ok := m.path.Receive(p, now)
	c.applyState(m, now) // before the peer gets the reply
	if ok {
		reply.Willing = m.path.State() != Paused // the carrier may have failed
		c.send(m, reply)
	}
}

// advancePaths does the work of all paths that is due at now.
func (c *Controller) advancePaths(now time.Time) {
	for _, m := range c.members {
		if now.Before(m.path.Due()) {
			continue
		}
		c.lookForProof(m, now)
		p, ok := m.path.Next(now)
		c.applyState(m, now)
		if ok {
			c.send(m, p)
		}
		if m.path.Doubtful() {
			c.cfg.Router.ProvePeer(m.ID)
		}
	}
}

// lookForProof passes to a path without replies whether userspace reaches the peer, so that it is left only for a better one.
func (c *Controller) lookForProof(m *member, now time.Time) {
	if !m.path.Doubtful() {
		return
	}
	m.path.Heard(c.cfg.Router.LastHeard(m.ID), now)
	if kept := m.path.Kept(); kept && !m.kept {
		c.log.Warn("a peer does not answer probes of the carrier, nor in userspace: the kernel goes on carrying it", "peer", m.ID)
	}
	m.kept = m.path.Kept()
}

// applyState moves m to the kernel or back if the state of its path requires it, and publishes the state.
func (c *Controller) applyState(m *member, now time.Time) {
	if m.path.State() == Carrying && !m.kernel {
		c.moveToKernel(m, now)
	}
	if m.path.State() != Carrying && m.kernel {
		c.moveToUserspace(m, now)
	}
	c.publish(m, now)
}

// moveToKernel makes the kernel carry m, if the carrier is ready. Otherwise the path fails.
func (c *Controller) moveToKernel(m *member, now time.Time) {
	if !c.ready {
		m.path.Fail(now)
		return
	}
	if err := c.carry(m, c.cfg.Router.ReleaseMACs(m.ID)); err != nil {
		m.path.Fail(now)
		c.log.Warn("cannot move a peer to the carrier", "peer", m.ID, "err", err)
		c.purge(m)
		return
	}
	m.kernel = true
	c.publish(m, now)
	c.cfg.Router.SetKernel(m.ID, true)
	c.log.Info("peer carried by the kernel", "peer", m.ID, "addr", m.Addr)
}

// carry makes the kernel carry m, with macs behind it. A frame of one of them may have come from another peer after the router has released
// it: the carrier had not seen that frame, which went by the TAP, so it has put the address behind the wrong peer.
func (c *Controller) carry(m *member, macs []ether.Addr) error {
	err := c.cfg.Carrier.Carry(m.ID, true, macs)
	if err != nil || len(macs) == 0 {
		return err
	}
	if moved := c.cfg.Router.MovedMACs(m.ID, macs); len(moved) > 0 {
		return c.cfg.Carrier.Forget(moved)
	}
	return nil
}

// moveToUserspace makes the router carry m again, and then ends carrying it in the kernel.
func (c *Controller) moveToUserspace(m *member, now time.Time) {
	m.kernel, m.left = false, now
	c.publish(m, now)
	c.cfg.Router.SetKernel(m.ID, false)
	c.purge(m)
	c.log.Info("peer not carried by the kernel any more", "peer", m.ID, "addr", m.Addr)
}

// purge removes m from the kernel's tables.
func (c *Controller) purge(m *member) {
	// If the carrier is gone, its tables are too, and Run ends.
	if err := c.cfg.Carrier.Carry(m.ID, false, nil); err != nil && !errors.Is(err, ErrGone) {
		c.log.Warn("cannot remove a peer from the carrier", "peer", m.ID, "err", err)
	}
}

// send sends p to m. A probe that cannot be sent is a lost probe, with the same consequences.
func (c *Controller) send(m *member, p Probe) {
	p.From, p.To = c.cfg.Self, m.ID
	if c.cfg.Carrier.Send(p) == nil {
		c.sent.Add(1)
	}
}

// sample reads the state of the carrier. It reports whether frames pass. All peers are moved to userspace if the
// carrier is not ready.
func (c *Controller) sample(now time.Time) (busy bool, err error) {
	sample, err := c.cfg.Carrier.Sample()
	if err != nil {
		return false, err
	}
	busy = c.traffic.moved(sample.Frames, c.sent.Load()+c.received.Load())
	c.why.Store(&sample.Why)
	if c.ready && !sample.Ready {
		c.log.Warn("the carrier cannot be used now: its peers are carried in another way",
			"cause", cmp.Or(sample.Why, "the device is down or no port of the bridge"))
	}
	c.ready = sample.Ready
	for _, m := range c.members {
		if m.kernel && !c.ready {
			m.path.Fail(now)
			c.applyState(m, now)
		}
		c.lookForProof(m, now)
		if busy {
			m.path.Traffic(now)
		}
	}
	return busy, nil
}

// sweep moves hardware addresses to the kernel that the router learned after their peer was moved, as the peer moved
// later. It also removes addresses that the kernel learned from a peer that moved back later than this node.
func (c *Controller) sweep(now time.Time) {
	for _, m := range c.members {
		if !m.kernel {
			if now.Sub(m.left) < purgeTime {
				c.purge(m)
			}
			continue
		}
		if macs := c.cfg.Router.ReleaseMACs(m.ID); len(macs) > 0 {
			if err := c.carry(m, macs); err != nil {
				c.log.Warn("cannot move hardware addresses to the carrier", "peer", m.ID, "err", err)
			}
		}
	}
}

// dropOthers drops the members that are not in peers with the same address.
func (c *Controller) dropOthers(peers []Peer) {
	c.latest = map[Peer]bool{}
	for _, p := range peers {
		p.Addr = p.Addr.Unmap()
		c.latest[p] = true
	}
	for _, m := range c.members {
		if !c.latest[m.Peer] {
			c.drop(m)
		}
	}
}

// setReachable makes those of peers members that the last SetPeers has, and drops all other members: the carrier reaches
// peers alone.
func (c *Controller) setReachable(peers []Peer, now time.Time) {
	reached := map[Peer]bool{}
	for _, p := range peers {
		reached[p] = true
		if c.members[p.ID] == nil && c.latest[p] {
			m := &member{Peer: p, path: NewPath(random, now)}
			c.members[p.ID] = m
			c.publish(m, now)
		}
	}
	for _, m := range c.members {
		if !reached[m.Peer] {
			c.drop(m)
		}
	}
}

// drop moves m to userspace, sends it a goodbye so that it does so at once, and removes it from the members.
func (c *Controller) drop(m *member) {
	if m.kernel {
		c.moveToUserspace(m, time.Now())
	}
	c.send(m, Goodbye())
	delete(c.members, m.ID)
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.statuses[m.ID]
	if s.member, s.state = false, Paused; !s.requested {
		delete(c.statuses, m.ID)
	}
}

// end makes the router carry all members, and sends them a goodbye. The end of the carrier, which follows, removes them from the kernel.
func (c *Controller) end() {
	now := time.Now()
	for _, m := range c.members {
		if m.kernel {
			m.kernel = false
			c.publish(m, now)
			c.cfg.Router.SetKernel(m.ID, false)
		}
		c.send(m, Goodbye())
	}
}

// publish sets the status of m for Carries and Peers.
func (c *Controller) publish(m *member, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.statuses[m.ID]
	if s == nil { // not in a SetPeers that Run has not handled yet
		s = &status{since: now}
		c.statuses[m.ID] = s
	}
	if s.kernel != m.kernel {
		s.since = now
	}
	s.member, s.state, s.kernel = true, m.path.State(), m.kernel
}
