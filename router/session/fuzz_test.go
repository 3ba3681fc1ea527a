package session

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"weft/router/wire"
)

// game is two nodes and the datagrams in flight between them; a fuzzer makes the moves.
type game struct {
	t       *testing.T
	nodes   []*Node
	peers   []Peer
	now     time.Time
	flights []flight
	// current are the sessions with which each node sends.
	current [2]*Session
	// sent are the bodies that one node sealed and the other has not opened yet; used are the counters that were used.
	sent map[string]bool
	used map[string]bool
}

type flight struct {
	to       int
	datagram []byte
}

func newGame(t *testing.T) *game {
	g := &game{t: t, now: epoch, sent: map[string]bool{}, used: map[string]bool{}}
	g.nodes, g.peers = newNodes(t, Config{Secrets: []Secret{secretOf(1)}}, Config{Secrets: []Secret{secretOf(1)}})
	return g
}

// play makes one move, of two bytes.
func (g *game) play(move, arg byte) {
	at := int(arg) & 1
	switch move % 10 {
	case 0, 1:
		g.send(at)
	case 2, 3:
		g.arrive(0, nil)
	case 4:
		g.arrive(int(arg), nil)
	case 5:
		if i := g.index(int(arg)); i >= 0 {
			g.flights = append(g.flights, g.flights[i]) // a duplicate
		}
	case 6:
		if i := g.index(int(arg)); i >= 0 {
			g.flights = append(g.flights[:i], g.flights[i+1:]...)
		}
	case 7:
		g.arrive(int(arg), func(b []byte) { b[int(arg)*7%len(b)] ^= 1 << (arg % 8) })
	case 8:
		g.now = g.now.Add(time.Duration(arg) * time.Duration(arg) * 5 * time.Millisecond)
		g.nodes[at].Advance(g.now)
	case 9:
		g.disturb(at, arg>>1)
	}
	for i := range g.nodes {
		g.collect(i)
	}
}

// disturb causes a rare event at a node.
func (g *game) disturb(at int, how byte) {
	switch how % 4 {
	case 0: // a restart: the node loses all but its key
		fresh, err := NewNode(Config{
			Private: [KeyLen]byte(g.nodes[at].party.static.Private), Cluster: "test", Offer: anyOffer, Secrets: []Secret{secretOf(1)},
			Random: newReader(uint64(len(g.used))*2 + uint64(at)),
		})
		if err != nil {
			g.t.Fatal(err)
		}
		fresh.SetPeers(g.peers, g.now)
		g.nodes[at], g.current[at] = fresh, nil
	case 1:
		g.nodes[at].SetSecrets([]Secret{secretOf(int(how) % 3), secretOf(1)}, g.now)
	case 2: // the other node is no peer for a moment
		g.nodes[at].SetPeers(nil, g.now)
		g.nodes[at].SetPeers(g.peers, g.now)
	case 3:
		g.now = g.now.Add(-time.Hour)
	}
}

var anyOffer = NewOffer(0, true)

// index returns the index of a datagram in flight, or -1.
func (g *game) index(i int) int {
	if len(g.flights) == 0 {
		return -1
	}
	return i % len(g.flights)
}

// send seals a frame at a node, or requests a session.
func (g *game) send(at int) {
	s := g.current[at]
	if s == nil {
		g.nodes[at].RequestSession(g.peers[1-at].ID, g.now)
		return
	}
	counter, ok := s.Reserve(1)
	if !ok {
		return
	}
	s.Use()
	body := fmt.Sprintf("frame %d of %d", len(g.used), at)
	g.sent[body] = true
	g.launch(at, s.Seal(nil, wire.TypeFrame, counter, []byte(body)), s)
}

// launch adds a datagram in flight. by is the session that sealed it, nil for none.
func (g *game) launch(from int, datagram []byte, by *Session) {
	if h := parse(g.t, datagram); by != nil {
		key := fmt.Sprintf("%p %d", by, h.Counter)
		if g.used[key] {
			g.t.Fatal("a counter is used a second time")
		}
		g.used[key] = true
	}
	g.flights = append(g.flights, flight{1 - from, datagram})
}

// arrive delivers a datagram in flight. If change is not nil, it changes the datagram, which must then be refused.
func (g *game) arrive(i int, change func([]byte)) {
	if i = g.index(i); i < 0 {
		return
	}
	f := g.flights[i]
	b := bytes.Clone(f.datagram)
	if change != nil {
		change(b)
	} else {
		g.flights = append(g.flights[:i], g.flights[i+1:]...)
	}
	n := g.nodes[f.to]
	h, _, err := wire.Parse(b)
	if err != nil {
		return
	}
	opened := n.Lookup(h.Session) != nil && h.Type <= wire.TypePlain
	err = receive(n, b, g.peers[1-f.to].Addr, g.now)
	if err != nil || !opened {
		return
	}
	if change != nil {
		g.t.Fatalf("a datagram that was changed is opened: %x", b)
	}
	if h.Type == wire.TypeFrame {
		body := string(b[wire.HeaderLen : len(b)-wire.TagLen])
		if !g.sent[body] {
			g.t.Fatalf("%q comes a second time, or was never sealed", body)
		}
		delete(g.sent, body)
	}
}

// collect records the messages and session changes that a move caused.
func (g *game) collect(at int) {
	messages, changes := g.nodes[at].Drain()
	for _, c := range changes {
		g.current[at] = c.Session
	}
	for _, m := range messages {
		var by *Session
		if h := parse(g.t, m.Datagram); h.Type == wire.TypeKeepalive {
			by = g.current[at]
		}
		g.launch(at, m.Datagram, by)
	}
	if len(g.flights) > 200 {
		g.flights = g.flights[len(g.flights)-200:]
	}
	if sessions := len(*g.nodes[at].table.sessions.Load()); sessions > 3 {
		g.t.Fatalf("%d sessions with one peer", sessions)
	}
}

// FuzzSessions: whatever happens to the datagrams of two nodes and to the nodes, only sealed datagrams are opened, each
// once, no counter is used twice, and there are never more than three sessions. When the network works again at the
// end, frames pass.
func FuzzSessions(f *testing.F) {
	f.Add([]byte{0, 0, 2, 0, 2, 0, 0, 0, 2, 0})
	f.Add([]byte{0, 0, 0, 1, 2, 0, 2, 0, 2, 0, 2, 0, 0, 0, 0, 1, 4, 1, 5, 0, 7, 9, 2, 0, 2, 0})
	f.Add([]byte{0, 0, 2, 0, 2, 0, 0, 0, 9, 1, 0, 0, 2, 0, 2, 0, 2, 0, 8, 200, 8, 201, 2, 0, 2, 0})
	f.Add([]byte{0, 0, 2, 0, 2, 0, 8, 160, 0, 0, 8, 14, 8, 15, 2, 0, 9, 6, 0, 1, 2, 0, 9, 3, 0, 0})
	f.Fuzz(func(t *testing.T, moves []byte) {
		g := newGame(t)
		for i := 0; i+1 < min(len(moves), 400); i += 2 {
			g.play(moves[i], moves[i+1])
		}
		g.recover()
	})
}

// recover lets both nodes send over a working network for a while, and checks that frames pass both ways.
func (g *game) recover() {
	for i := range g.nodes {
		g.nodes[i].SetSecrets([]Secret{secretOf(1)}, g.now)
	}
	passed := [2]bool{}
	for range 600 {
		g.now = g.now.Add(100 * time.Millisecond)
		for i, n := range g.nodes {
			before := len(g.sent)
			g.send(i)
			g.collect(i)
			n.Advance(g.now)
			g.collect(i)
			sealed := len(g.sent) > before
			for len(g.flights) > 0 {
				left := len(g.sent)
				g.arrive(0, nil)
				passed[i] = passed[i] || sealed && len(g.sent) < left
				for j := range g.nodes {
					g.collect(j)
				}
			}
		}
	}
	if !passed[0] || !passed[1] {
		g.t.Fatalf("frames pass: %v", passed)
	}
}

// FuzzReceive: no message makes a node panic, allocate state, or send more bytes than it received.
func FuzzReceive(f *testing.F) {
	nodes, peers := newNodes(f, Config{}, Config{})
	nodes[0].RequestSession(peers[1].ID, epoch)
	messages, _ := nodes[0].Drain()
	f.Add(messages[0].Datagram)
	deliver(f, nodes[1], messages[0].Datagram, peers[0].Addr, epoch)
	messages, _ = nodes[1].Drain()
	f.Add(messages[0].Datagram)
	f.Add([]byte{0x19, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Add(append([]byte{0x18, 0, 0, 1}, make([]byte, wire.CookieLen-4)...))
	victim, _ := newNodes(f, Config{})
	now := epoch
	f.Fuzz(func(t *testing.T, b []byte) {
		now = now.Add(time.Second)
		_ = victim[0].Receive(b, peers[1].Addr, now)
		answers, changes := victim[0].Drain()
		size := 0
		for _, a := range answers {
			size += len(a.Datagram)
		}
		if size > len(b) || len(changes) != 0 || len(*victim[0].table.sessions.Load()) != 0 {
			t.Fatalf("%d bytes in answer to %d, %d sessions", size, len(b), len(*victim[0].table.sessions.Load()))
		}
	})
}
