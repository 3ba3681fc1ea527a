package pmtu

import (
	"math/rand/v2"
	"time"
)

var start = time.Unix(1_700_000_000, 0)

// path is the simulated path between a Prober and its peer, in both directions.
type path struct {
	mtu       int     // largest payload; larger datagrams are lost
	loss      float64 // a datagram, in either direction
	duplicate float64 // an answer
	delay     time.Duration
	jitter    time.Duration // on top of delay, by chance: answers overtake one another
	down      bool
	reports   bool // the path reports datagrams that are too large
}

// answer is a reply in flight.
type answer struct {
	at    time.Time
	token uint32
	size  int
}

// fataler is a testing.T or a rapid.T.
type fataler interface{ Fatalf(string, ...any) }

// world runs a Prober on a path in its own time.
type world struct {
	t    fataler
	p    *Prober
	path path
	now  time.Time
	rand *rand.Rand

	traffic   bool
	trafficAt time.Time // next
	answers   []answer

	probes  int // sent so far
	recent  []time.Time
	sizes   int // changes of the size so far
	shrinks int
	last    int // size
}

func newWorld(t fataler, cfg Config, pa path, seed uint64) *world {
	cfg.Seed = seed
	w := &world{
		t: t, p: New(cfg), path: pa, now: start, traffic: true, trafficAt: start,
		rand: rand.New(rand.NewPCG(seed, 1)),
	}
	w.last = w.p.Size()
	return w
}

// run lets d pass, or less if until, which may be nil, returns true. It reports whether until did.
func (w *world) run(d time.Duration, until func() bool) bool {
	end := w.now.Add(d)
	for {
		w.step()
		if until != nil && until() {
			return true
		}
		if next := w.next(); next.After(end) {
			w.now = end
			return false
		} else if next.After(w.now) {
			w.now = next
		}
	}
}

// next returns the time of the next event.
func (w *world) next() time.Time {
	next := w.now.Add(1000 * time.Hour)
	if w.traffic {
		next = earlier(next, w.trafficAt)
	}
	if at := w.p.Deadline(); !at.IsZero() {
		next = earlier(next, at)
	}
	for _, a := range w.answers {
		next = earlier(next, a.at)
	}
	return next
}

// step handles all events that are due.
func (w *world) step() {
	if w.traffic && !w.now.Before(w.trafficAt) {
		w.p.Traffic()
		w.trafficAt = w.now.Add(500 * time.Millisecond)
		if w.path.reports && w.p.Size() > w.path.mtu {
			w.p.TooBig(w.p.Size(), w.path.mtu, w.now)
		}
	}
	kept := w.answers[:0]
	for _, a := range w.answers {
		if a.at.After(w.now) {
			kept = append(kept, a)
			continue
		}
		w.p.Acked(a.token, a.size, w.now)
	}
	w.answers = kept
	for {
		size, token, ok := w.p.Next(w.now)
		if !ok {
			break
		}
		w.send(size, token)
	}
	w.check()
	if at := w.p.Deadline(); !at.IsZero() && !at.After(w.now) {
		w.t.Fatalf("asked at %s, to be asked again at %s: %+v", w.now, at, w.p)
	}
}

func (w *world) chance(p float64) bool { return p > 0 && w.rand.Float64() < p }

func (w *world) send(size int, token uint32) {
	w.probes++
	w.recent = append(w.recent, w.now)
	if n := len(w.recent); n > 5 {
		if w.now.Sub(w.recent[n-6]) < time.Second {
			w.t.Fatalf("more than five probes within a second")
		}
		w.recent = append(w.recent[:0], w.recent[n-5:]...)
	}
	if size > w.p.max {
		w.t.Fatalf("a probe of %d bytes where %d may be sent", size, w.p.max)
	}
	if size > w.path.mtu || w.path.down || w.chance(w.path.loss) || w.chance(w.path.loss) {
		return
	}
	copies := 1
	if w.chance(w.path.duplicate) {
		copies++
	}
	for range copies {
		at := w.now.Add(w.path.delay)
		if w.path.jitter > 0 {
			at = at.Add(time.Duration(w.rand.Int64N(int64(w.path.jitter))))
		}
		w.answers = append(w.answers, answer{at, token, size})
	}
}

// check checks the invariants, and counts changes.
func (w *world) check() {
	size := w.p.Size()
	if size > w.p.max || size < w.p.effectiveBase() {
		w.t.Fatalf("size %d, base %d, max %d", size, w.p.base, w.p.max)
	}
	if size != w.last {
		w.sizes++
	}
	if size < w.last {
		w.shrinks++
	}
	w.last = size
}

// settled reports whether the Prober has found the MTU of the path.
func (w *world) settled() bool {
	return w.p.State() == StateConfirmed && w.p.Size() == min(w.path.mtu, w.p.max)
}
