package epoch

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"weft/internal/identity"
	"weft/internal/peer"
)

// sim runs keepers over a network with delays, in simulated time.
type sim struct {
	t     *testing.T
	rng   *rand.Rand
	now   time.Time
	ca    identity.CA
	nodes []*simNode
	mail  []mail
}

// simNode is a node of a sim. It implements Members.
type simNode struct {
	sim    *sim
	id     peer.ID
	keeper *Keeper
	side   int  // nodes of different sides do not reach each other
	honest bool // false: refused by nodes that have its revocation, but takes everything itself
}

// mail is a message on its way.
type mail struct {
	at       time.Time
	from, to *simNode
	unicast  bool
	msg      []byte
}

func newSim(t *testing.T, n int) *sim {
	s := &sim{t: t, rng: rand.New(rand.NewPCG(1, uint64(n))), now: time.Unix(1_700_000_000, 0), ca: identity.GenerateCA()}
	for i := range n {
		s.add(byte(i + 1))
	}
	return s
}

func (s *sim) add(id byte) *simNode {
	n := &simNode{sim: s, id: peer.ID{id}, honest: true}
	n.keeper = New(Config{
		Self: n.id, Trust: identity.NewTrust([]identity.CAKey{s.ca.Key()}), MaxBroadcast: 1000, Members: n,
		Random: s,
	}, s.now)
	s.nodes = append(s.nodes, n)
	return n
}

// Read implements io.Reader: it returns random bytes that are the same in every run.
func (s *sim) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s.rng.Uint32())
	}
	return len(b), nil
}

// Certified implements Members: the nodes on the same side. A real roster drops revoked ones; a Keeper has to do without that.
func (n *simNode) Certified() (ids []peer.ID) {
	for _, other := range n.sim.nodes {
		if other != n && other.side == n.side {
			ids = append(ids, other.id)
		}
	}
	return ids
}

func (s *sim) list(version uint64, ids ...peer.ID) identity.Revocations {
	s.t.Helper()
	var entries []identity.Revocation
	for _, id := range ids {
		entries = append(entries, identity.Revocation{ID: id, At: s.now})
	}
	list, err := s.ca.SignRevocations(version, s.now, entries)
	if err != nil {
		s.t.Fatal(err)
	}
	return list
}

// meet exchanges the states of two nodes.
func (s *sim) meet(a, b *simNode) {
	s.mail = append(s.mail, mail{s.now, a, b, false, a.keeper.State()}, mail{s.now, b, a, false, b.keeper.State()})
}

// collect sends what keepers have put out.
func (s *sim) collect() {
	for _, n := range s.nodes {
		out := n.keeper.Drain()
		for _, u := range out.Unicasts {
			to := s.nodes[slices.IndexFunc(s.nodes, func(n *simNode) bool { return n.id == u.To })]
			s.mail = append(s.mail, mail{s.delay(20), n, to, true, u.Msg})
		}
		for _, b := range out.Broadcasts {
			for _, to := range s.nodes {
				if to != n {
					s.mail = append(s.mail, mail{s.delay(1000), n, to, false, b})
				}
			}
		}
	}
}

func (s *sim) delay(most int) time.Time {
	return s.now.Add(time.Duration(1+s.rng.IntN(most)) * time.Millisecond)
}

// step is how exactly time passes in a sim.
const step = 5 * time.Millisecond

// run lets time pass.
func (s *sim) run(d time.Duration) {
	for end := s.now.Add(d); s.now.Before(end); s.now = s.now.Add(step) {
		s.collect()
		var later []mail
		for _, m := range s.mail {
			if m.at.After(s.now) {
				later = append(later, m)
			} else if m.from.side == m.to.side {
				s.deliver(m)
			}
		}
		s.mail = later
		for _, n := range s.nodes {
			if at := n.keeper.Next(s.now); !s.now.Before(at) {
				n.keeper.Tick(s.now)
			}
		}
	}
}

// deliver hands a message over, as the handshake of a stream allows it: not between nodes of which one refuses the other.
func (s *sim) deliver(m mail) {
	refuses := func(a, b *simNode) bool { return a.honest && a.keeper.isRevoked(b.id) }
	switch {
	case !m.unicast:
		_ = m.to.keeper.Merge(m.msg, s.now)
	case !refuses(m.to, m.from) && !refuses(m.from, m.to):
		_ = m.to.keeper.Message(m.from.id, m.msg, s.now)
	}
}

// agreed returns the epoch that all the given nodes seal with.
func (s *sim) agreed(nodes []*simNode) Epoch {
	s.t.Helper()
	first := nodes[0].keeper.Present()
	for _, n := range nodes {
		if n.keeper.Present().Name() != first.Name() {
			s.t.Fatalf("%s seals with %v, %s with %v", nodes[0].id, first, n.id, n.keeper.Present())
		}
		if keys := n.keeper.Opening(s.now); len(keys) == 0 || keys[0].Key != first.Key {
			s.t.Fatalf("%s does not open %v", n.id, first)
		}
	}
	return first
}

// joined returns a sim of n nodes that have met.
func joined(t *testing.T, n int) *sim {
	t.Helper()
	s := newSim(t, n)
	for i := range s.nodes[1:] {
		s.meet(s.nodes[i], s.nodes[i+1])
		s.run(50 * time.Millisecond)
	}
	s.run(3 * time.Second)
	s.agreed(s.nodes)
	return s
}

// opens reports whether a node has the key of an epoch, by all that it was ever sent.
func opens(n *simNode, e Epoch, now time.Time) bool {
	return slices.ContainsFunc(n.keeper.Opening(now), func(k Key) bool { return k.Key == e.Key })
}
