package vxlan

import (
	"errors"
	"time"
)

// take gives a probe to the path of the peer that says it has sent it.
func (s *Controller) take(p Probe, now time.Time) {
	m := s.members[p.From]
	if m == nil || p.To != s.cfg.Self {
		return
	}
	reply, ok := m.path.Receive(p, now)
	s.settle(m, now) // before the peer hears of it
	if ok {
		reply.Willing = m.path.State() != Userspace // as it has come out
		s.send(m, reply)
	}
}

// advance gives the paths their time.
func (s *Controller) advance(now time.Time) {
	for _, m := range s.members {
		p, ok := m.path.Next(now)
		s.settle(m, now)
		if ok {
			s.send(m, p)
		}
	}
}

// settle has the kernel carry m, or not, as its path says.
func (s *Controller) settle(m *member, now time.Time) {
	if m.path.State() == Kernel && !m.kernel {
		s.enter(m, now)
	}
	if m.path.State() != Kernel && m.kernel {
		s.exit(m, now)
	}
	s.publish(m)
}

// enter has the kernel begin to carry m, if the device is fit for it.
func (s *Controller) enter(m *member, now time.Time) {
	if !s.ready {
		m.path.Fail(now)
		return
	}
	if err := s.cfg.Device.Carry(m.ID, true, s.cfg.Take(m.ID)); err != nil {
		m.path.Fail(now)
		s.log.Warn("the kernel does not carry a peer: it stays in userspace", "peer", m.ID, "err", err)
		s.purge(m)
		return
	}
	m.kernel = true
	s.cfg.OnChange(m.ID, true)
	s.log.Info("peer carried by the kernel", "peer", m.ID, "addr", m.Addr)
}

// exit has the kernel cease to carry m, which then has been in userspace again for a moment already.
func (s *Controller) exit(m *member, now time.Time) {
	m.kernel, m.left = false, now
	s.cfg.OnChange(m.ID, false)
	s.purge(m)
	s.log.Info("peer carried in userspace again", "peer", m.ID, "addr", m.Addr)
}

func (s *Controller) purge(m *member) {
	// With the device all of it has gone, and Run ends.
	if err := s.cfg.Device.Carry(m.ID, false, nil); err != nil && !errors.Is(err, ErrGone) {
		s.log.Warn("taking a peer off the kernel path", "peer", m.ID, "err", err)
	}
}

// send sends p to m. What cannot be sent is a lost probe, and has the same consequence.
func (s *Controller) send(m *member, p Probe) {
	p.From, p.To = s.cfg.Self, m.ID
	if s.cfg.Device.Send(p) == nil {
		s.sent.Add(1)
	}
}

// look looks at the device: whether frames pass, and whether they could.
func (s *Controller) look(now time.Time) (busy bool, err error) {
	sample, err := s.cfg.Device.Sample()
	if err != nil {
		return false, err
	}
	busy = s.traffic.moved(sample.Frames, s.sent.Load()+s.received.Load())
	if s.ready && !sample.Ready {
		s.log.Warn("the VXLAN device is down or no port of a bridge: all peers are carried in userspace")
	}
	s.ready = sample.Ready
	for _, m := range s.members {
		if m.kernel && !s.ready {
			m.path.Fail(now)
			s.settle(m, now)
		}
		if busy {
			m.path.Traffic(now)
		}
	}
	return busy, nil
}

// sweep moves addresses that went through userspace after their peer was moved to the kernel, as the peer moved later;
// and takes out again what the kernel has learned from a peer that moved back later than this node.
func (s *Controller) sweep(now time.Time) {
	for _, m := range s.members {
		if !m.kernel {
			if now.Sub(m.left) < settling {
				s.purge(m)
			}
			continue
		}
		if macs := s.cfg.Take(m.ID); len(macs) > 0 {
			if err := s.cfg.Device.Carry(m.ID, true, macs); err != nil {
				s.log.Warn("moving addresses to the kernel path", "peer", m.ID, "err", err)
			}
		}
	}
}

// leave bids farewell to members that are not in peers, or not under that address.
func (s *Controller) leave(peers []Peer) {
	s.latest = map[Peer]bool{}
	for _, p := range peers {
		s.latest[Peer{p.ID, p.Addr.Unmap()}] = true
	}
	for _, m := range s.members {
		if !s.latest[m.Peer] {
			s.drop(m)
		}
	}
}

// join makes those of peers members that are still wanted, and nobody else: they are what the device reaches now.
func (s *Controller) join(peers []Peer, now time.Time) {
	reached := map[Peer]bool{}
	for _, p := range peers {
		reached[p] = true
		if s.members[p.ID] == nil && s.latest[p] {
			m := &member{Peer: p, path: NewPath(random, now)}
			s.members[p.ID] = m
			s.publish(m)
		}
	}
	for _, m := range s.members {
		if !reached[m.Peer] {
			s.drop(m)
		}
	}
}

// drop bids m farewell, so that it need not find out, and forgets it.
func (s *Controller) drop(m *member) {
	if m.kernel {
		s.exit(m, time.Now())
	}
	s.send(m, Goodbye())
	delete(s.members, m.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.states, m.ID)
}

// publish makes the state of m's path known to States.
func (s *Controller) publish(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states[m.ID] = m.path.State()
}
