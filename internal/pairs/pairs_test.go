package pairs

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/peer"
	"weft/router/carrier"
	"weft/router/carrier/vxlan"
)

const (
	port    = 6785
	channel = 7
)

// end is a node with Pairs. It is their Host and their Sessions.
type end struct {
	*Pairs
	id    peer.ID
	other *end

	mu      sync.Mutex
	role    Role
	addr    netip.Addr // where the other one is reached
	to      netip.Addr // where it has to send to the other one
	source  netip.Addr // from which it sends to the other one
	foreign netip.Addr // which cannot be that of the other one
	alone   bool       // there is no session
	carries bool
	lost    int // messages that get lost
	sent    int
	changes int
}

func (e *end) do(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
}

func (e *end) Members() map[peer.ID]Member {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.role == None {
		return nil
	}
	return map[peer.ID]Member{e.other.id: {e.role, e.to}}
}

func (e *end) Member(id peer.ID) Member { return e.Members()[id] }

func (e *end) MayBe(_ peer.ID, addr netip.Addr) (may bool) {
	e.do(func() { may = addr != e.foreign })
	return may
}

func (e *end) HasSession(peer.ID) (has bool) {
	e.do(func() { has = !e.alone })
	return has
}

func (e *end) Source(to netip.Addr) (source netip.Addr) {
	if !to.IsValid() {
		return source
	}
	e.do(func() { source = e.source })
	return source
}

func (e *end) Carries(peer.ID) (carries bool) {
	e.do(func() { carries = e.carries })
	return carries
}

func (e *end) Changed() { e.do(func() { e.changes++ }) }

func (e *end) SendControl(_ peer.ID, to uint8, message []byte) error {
	var lost bool
	e.do(func() {
		e.sent++
		if lost = e.lost > 0; lost {
			e.lost--
		}
	})
	if to != channel {
		return errors.New("another channel")
	}
	if !lost {
		e.other.Received(e.id, message)
	}
	return nil
}

func (e *end) Endpoint(peer.ID) (at netip.AddrPort) {
	e.do(func() {
		if e.addr.IsValid() {
			at = netip.AddrPortFrom(e.addr, 6784)
		}
	})
	return at
}

// simulate runs f with two nodes that have a session: the first one begins.
func simulate(t *testing.T, f func(t *testing.T, a, b *end)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ends := [2]*end{
			{id: peer.ID{1}, role: Begins, addr: netip.MustParseAddr("192.0.2.2")},
			{id: peer.ID{2}, role: Answers, addr: netip.MustParseAddr("192.0.2.1")},
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for i, e := range ends {
			e.other = ends[1-i]
			e.Pairs = New(Config{Port: port, Channel: channel, Host: e, Logger: slog.New(slog.DiscardHandler)})
		}
		for _, e := range ends {
			running.Go(func() { e.Run(ctx, e) })
		}
		f(t, ends[0], ends[1])
		cancel()
		running.Wait()
	})
}

// requests returns how many messages the node has sent, and seen how often Changed was called.
func (e *end) requests() (n int) {
	e.do(func() { n = e.sent })
	return n
}

func (e *end) seen() (n int) {
	e.do(func() { n = e.changes })
	return n
}

// pass lets time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// agreed checks that both ends have agreed, and returns what they have agreed on.
func agreed(t *testing.T, a, b *end) (of carrier.Peer) {
	t.Helper()
	of, ok := a.Peer(b.id)
	back, answers := b.Peer(a.id)
	if !ok || !answers {
		t.Fatalf("no pair: %v, %v", ok, answers)
	}
	if of.Pair.Port != port || back.Pair.Port != 0 || of.Pair.VNI != back.Pair.VNI || of.Pair.Token != back.Pair.Token ||
		of.Pair.Token == (carrier.Token{}) || of.Addr != a.addr || back.Addr != b.addr {
		t.Fatalf("the ends have %+v and %+v", of, back)
	}
	return of
}

// TestAgree: both ends have the same pair after a second, also when messages get lost, and keep it while the kernel carries frames.
func TestAgree(t *testing.T) {
	simulate(t, func(t *testing.T, a, b *end) {
		a.do(func() { a.lost = 1 })
		b.do(func() { b.lost = 1 })
		pass(time.Minute)
		first := agreed(t, a, b)
		a.do(func() { a.carries = true })
		b.do(func() { b.carries = true })
		pass(time.Second)
		sent := a.requests()
		pass(time.Hour)
		if again := agreed(t, a, b); again != first || a.requests() != sent || a.seen() != 1 || b.seen() != 1 {
			t.Errorf("%d requests in an hour, changes: %d, %d", a.requests()-sent, a.seen(), b.seen())
		}
	})
}

// TestAnotherOffer: an offer that leads to nothing is replaced after a minute, not before, and requests become rare.
func TestAnotherOffer(t *testing.T) {
	simulate(t, func(t *testing.T, a, b *end) {
		pass(2 * time.Second)
		first := agreed(t, a, b)
		pass(50 * time.Second)
		if got := agreed(t, a, b); got != first {
			t.Error("another offer within a minute")
		}
		pass(50 * time.Second)
		second := agreed(t, a, b)
		if second.Pair.VNI == first.Pair.VNI || second.Pair.Token == first.Pair.Token {
			t.Error("the same offer after a minute")
		}
		pass(time.Minute)
		if got := agreed(t, a, b); got != second {
			t.Error("another offer after one minute more")
		}
		sent := a.requests()
		pass(10 * time.Minute)
		if n := a.requests() - sent; n < 19 || n > 21 {
			t.Errorf("%d requests in ten minutes", n)
		}
	})
}

// TestFollows: both ends follow the address of the other; one that cannot be reached for a while stays where it was.
func TestFollows(t *testing.T) {
	simulate(t, func(t *testing.T, a, b *end) {
		pass(2 * time.Second)
		agreed(t, a, b)
		b.do(func() { b.addr, b.changes = netip.MustParseAddr("198.51.100.7"), 0 })
		pass(2 * time.Second)
		agreed(t, a, b)
		if b.seen() != 1 {
			t.Errorf("%d changes", b.seen())
		}
		b.do(func() { b.addr = netip.Addr{} })
		pass(2 * time.Second)
		if p, ok := b.Peer(a.id); !ok || p.Addr != netip.MustParseAddr("198.51.100.7") {
			t.Errorf("without a session: %v, %v", p, ok)
		}
	})
}

// TestNamedAddress: a node that begins without a translator names the address from which it sends, and the other one expects it there,
// wherever it sends datagrams to.
func TestNamedAddress(t *testing.T) {
	simulate(t, func(t *testing.T, a, b *end) {
		named := netip.MustParseAddr("2001:db8::1")
		a.do(func() { a.source = named })
		pass(2 * time.Second)
		if p, ok := b.Peer(a.id); !ok || p.Addr != named {
			t.Errorf("named: %v, %v", p, ok)
		}
		b.do(func() { b.foreign = netip.MustParseAddr("2001:db8::7") })
		a.do(func() { a.source = b.foreign })
		pass(longestPause + 2*time.Second)
		if p, ok := b.Peer(a.id); !ok || p.Addr != named {
			t.Errorf("one of another node: %v, %v", p, ok)
		}
		a.do(func() { a.source = named })
		changes := b.seen()
		b.do(func() { b.addr = netip.MustParseAddr("198.51.100.7") })
		pass(2 * time.Second)
		if p, ok := b.Peer(a.id); !ok || p.Addr != named || b.seen() != changes {
			t.Errorf("followed: %v, %v, changes %d, %d", p, ok, changes, b.seen())
		}
		to := netip.MustParseAddr("2001:db8::2")
		a.do(func() { a.to = to })
		pass(2 * time.Second)
		if p, ok := a.Peer(b.id); !ok || p.Addr != to {
			t.Errorf("where the other one has to be: %v, %v", p, ok)
		}
		a.do(func() { a.source, a.to = netip.Addr{}, netip.Addr{} }) // it is behind a translator now
		pass(longestPause + 2*time.Second)
		agreed(t, a, b)
	})
}

// TestEnds: a pair ends with the role, at each end, and another one begins in the other role.
func TestEnds(t *testing.T) {
	simulate(t, func(t *testing.T, a, b *end) {
		pass(2 * time.Second)
		agreed(t, a, b)
		a.do(func() { a.role, a.carries = None, true })
		pass(2 * time.Second)
		if p, ok := a.Peer(b.id); !ok {
			t.Errorf("forgotten while the kernel carries frames: %v", p)
		}
		a.do(func() { a.carries = false })
		b.do(func() { b.role = None })
		pass(2 * time.Second)
		for _, e := range []*end{a, b} {
			if p, ok := e.Peer(e.other.id); ok {
				t.Errorf("still %v", p)
			}
		}
		a.do(func() { a.role = Answers })
		b.do(func() { b.role = Begins })
		pass(2 * time.Second)
		agreed(t, b, a)
	})
}

// TestWrongRole: messages that do not belong to the role of this node, and those that are none, change nothing.
func TestWrongRole(t *testing.T) {
	simulate(t, func(t *testing.T, a, b *end) {
		a.do(func() { a.lost = 1000 })
		offer := Offer{VNI: 2, Token: carrier.Token{3}}.message()
		for _, text := range [][]byte{offer, nil, {version}, {9, kindRequest}, {version, kindRequest}, {version, 9}} {
			b.Received(a.id, text)
		}
		for _, text := range [][]byte{
			request(netip.Addr{}), offer[:len(offer)-1], append(append([]byte(nil), offer...), 0),
			Offer{}.message(), Offer{VNI: 1 << 24}.message(),
		} {
			a.Received(b.id, text)
		}
		a.Received(peer.ID{9}, offer)
		pass(2 * time.Second)
		for _, e := range []*end{a, b} {
			for _, id := range []peer.ID{e.other.id, {9}} {
				if p, ok := e.Peer(id); ok {
					t.Errorf("%v", p)
				}
			}
		}
	})
}

// TestNoSession: without a session nothing is asked, and so none is made.
func TestNoSession(t *testing.T) {
	simulate(t, func(t *testing.T, a, b *end) {
		a.do(func() { a.alone = true })
		pass(time.Minute)
		if _, ok := a.Peer(b.id); ok || a.requests() > 0 {
			t.Errorf("%d requests", a.requests())
		}
		a.do(func() { a.alone = false })
		pass(2 * time.Second)
		agreed(t, a, b)
	})
}

// TestBounds: a node makes no more offers than it has devices, answers one member not more often than needed, and takes no VNI twice.
func TestBounds(t *testing.T) {
	simulate(t, func(t *testing.T, a, b *end) {
		b.Pairs.mu.Lock()
		for i := range vxlan.MaxPairs - 1 {
			b.states[peer.ID{9, byte(i)}] = &state{role: Answers, offer: Offer{VNI: uint32(i + 1)}}
		}
		b.Pairs.mu.Unlock()
		h := &handler{b}
		if !h.handle(a.id, request(netip.Addr{})) {
			t.Error("no offer although there is a device left")
		}
		sent := b.requests()
		for range 10 {
			h.handle(a.id, request(netip.Addr{}))
		}
		if b.requests() != sent {
			t.Errorf("%d answers at once", b.requests()-sent)
		}
		b.Pairs.mu.Lock()
		delete(b.states, a.id)
		b.states[peer.ID{8}] = &state{role: Answers, offer: Offer{VNI: 1000}}
		b.Pairs.mu.Unlock()
		if h.handle(a.id, request(netip.Addr{})) {
			t.Error("an offer without a device")
		}
		a.Pairs.mu.Lock()
		a.states[peer.ID{7}] = &state{role: Begins, offer: Offer{VNI: 5}}
		a.Pairs.mu.Unlock()
		(&handler{a}).handle(b.id, Offer{VNI: 5, Token: carrier.Token{1}}.message())
		if p, ok := a.Peer(b.id); ok && p.Pair.VNI == 5 {
			t.Error("two pairs with one VNI")
		}
	})
}

// handler handles messages at once.
type handler struct{ *end }

func (h *handler) handle(from peer.ID, text []byte) bool {
	return h.Pairs.handle(h.end, message{from, text}, time.Now())
}

func FuzzParse(f *testing.F) {
	f.Add(request(netip.Addr{}))
	f.Add(request(netip.MustParseAddr("192.0.2.1")))
	f.Add(Offer{VNI: 2, Token: carrier.Token{3}}.message())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		want := slices.Clone(b)
		var got []byte
		switch {
		case err != nil || m.isRequest && !m.from.Is6(): // IPv4 and none have several forms
			return
		case m.isRequest:
			got = request(m.from)
		default:
			want[2], want[3] = 0, 0 // are ignored
			got = m.offer.message()
		}
		if string(got) != string(want) {
			t.Errorf("%x became %+v", b, m)
		}
	})
}
