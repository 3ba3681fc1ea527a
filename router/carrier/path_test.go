package carrier

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
)

// pathScripts are scripts for two nodes and their paths to each other, one step a line:
//
//	start N            node N starts, or starts again
//	kill N             N is silent from now on
//	leave N            N sends a goodbye, and is silent
//	cut N, heal N      probes of N are lost, arrive again
//	daemon N, stop N   N's daemon answers in userspace, does not (as after "kill")
//	loss P             P percent of the probes of both are lost at random
//	latency D          probes arrive after D
//	busy, calm         frames pass, or do not
//	run D              time passes
//	until N STATE D    time passes until N is in STATE, at most D
//	stay N STATE D     N is in STATE for all of D
//	probes N MIN MAX   N has sent so many probes, without replies, since the last such line
var pathScripts = map[string]string{
	"both start": `
		start a
		run 300ms
		start b
		until a carrying 1s
		until b carrying 1s
		stay a carrying 10m
		stay b carrying 10m`,
	"long way": `
		latency 250ms
		start a
		start b
		until a carrying 2s
		until b carrying 2s
		busy
		stay a carrying 1m`,
	"too long a way": `
		latency 400ms
		start a
		start b
		stay a paused 1ms
		run 10s
		stay a probing 1ms
		stay b probing 10s`,
	"quiet when nothing passes": `
		start a
		start b
		until a carrying 1s
		until b carrying 1s
		probes a 0 9
		run 100s
		probes a 18 23`,
	"close watch under traffic": `
		start a
		start b
		until a carrying 1s
		probes a 0 9
		busy
		run 10s
		probes a 44 56`,
	"one direction lost under traffic": `
		start a
		start b
		run 5s
		busy
		run 5s
		cut a
		until a paused 900ms
		until b paused 300ms`,
	"the other direction lost under traffic": `
		start a
		start b
		run 5s
		busy
		run 5s
		cut b
		until a paused 900ms
		until b paused 300ms`,
	"lost while calm, then traffic": `
		start a
		start b
		run 5s
		cut a
		cut b
		busy
		until a paused 900ms
		until b paused 900ms`,
	"one direction never works": `
		start a
		start b
		cut a
		stay b paused 1ms
		run 2m
		probes a 0 100
		run 10m
		probes a 40 120
		heal a
		until a carrying 2m
		until b carrying 2s`,
	"no peer there": `
		start a
		run 3m
		probes a 0 50
		run 1h
		probes a 250 340
		start b
		until b carrying 1500ms
		until a carrying 1500ms`,
	"a few are lost": `
		start a
		start b
		run 5s
		busy
		loss 1
		stay a carrying 1m
		stay b carrying 1m`,
	"restart": `
		start a
		start b
		run 5s
		kill b
		start b
		until b carrying 1s
		until a carrying 1s
		stay a carrying 10s`,
	"crash under traffic": `
		start a
		start b
		busy
		run 5s
		kill b
		stay a carrying 1m
		probes a 60 90
		start b
		until b carrying 2s
		until a carrying 1s
		stay a carrying 10s`,
	"gone for good": `
		start a
		start b
		run 10s
		kill b
		stay a carrying 4m
		until a paused 2m`,
	"crash while calm": `
		start a
		start b
		run 5s
		kill b
		stay a carrying 1m
		start b
		until b carrying 2s
		until a carrying 1s`,
	"neither path works, then userspace": `
		start a
		start b
		busy
		run 5s
		stop b
		cut a
		stay a carrying 10s
		daemon b
		until a paused 100ms
		heal a
		until a carrying 4s`,
	"farewell": `
		start a
		start b
		run 5s
		leave b
		run 10ms
		stay a probing 1ms
		until a paused 2s`,
	"flapping is damped": `
		start a
		start b
		busy
		until a carrying 2s
		cut a
		until a paused 1s
		heal a
		until a carrying 4s
		cut a
		until a paused 1s
		heal a
		stay a paused 1500ms
		until a carrying 4s
		cut a
		until a paused 1s
		heal a
		stay a paused 3500ms
		until a carrying 6s
		stay a carrying 2m
		cut a
		until a paused 1s
		heal a
		until a carrying 3s`,
}

func TestPath(t *testing.T) {
	for name, script := range pathScripts {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				w := newWorld(seed)
				for i, line := range strings.Split(strings.TrimSpace(script), "\n") {
					if err := w.step(strings.Fields(line)); err != nil {
						t.Fatalf("seed %d, line %d, %s: %v", seed, i+1, strings.TrimSpace(line), err)
					}
				}
			}
		})
	}
}

// world is two paths, the network between them, and a clock.
type world struct {
	rand    *rand.Rand
	now     time.Time
	paths   map[string]*Path
	cut     map[string]bool
	stopped map[string]bool // do not answer in userspace
	sent    map[string]int
	latency time.Duration
	loss    int
	busy    bool
	flying  []flight
}

type flight struct {
	to    string
	at    time.Time
	probe Probe
}

// tick is the finest step of the world's clock.
const tick = 5 * time.Millisecond

func newWorld(seed uint64) *world {
	return &world{
		rand: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1e9, 0), latency: time.Millisecond,
		paths: map[string]*Path{}, cut: map[string]bool{}, sent: map[string]int{}, stopped: map[string]bool{},
	}
}

func (w *world) step(f []string) error {
	switch f[0] {
	case "start":
		w.paths[f[1]] = NewPath(w.rand.Uint64, w.now)
	case "kill":
		delete(w.paths, f[1])
	case "leave":
		w.fly(f[1], Goodbye())
		delete(w.paths, f[1])
	case "daemon", "stop":
		w.stopped[f[1]] = f[0] == "stop"
	case "cut", "heal":
		w.cut[f[1]] = f[0] == "cut"
	case "busy", "calm":
		w.busy = f[0] == "busy"
	case "loss":
		w.loss, _ = strconv.Atoi(f[1])
	case "latency":
		w.latency = duration(f[1])
	case "run":
		for end := w.now.Add(duration(f[1])); w.now.Before(end); {
			w.tick(end)
		}
	case "until":
		for end := w.now.Add(duration(f[3])); w.paths[f[1]].State().String() != f[2]; w.tick(end) {
			if !w.now.Before(end) {
				return fmt.Errorf("is in state %s", w.paths[f[1]].State())
			}
		}
	case "stay":
		start := w.now
		for end := start.Add(duration(f[3])); w.now.Before(end); w.tick(end) {
			if got := w.paths[f[1]].State(); got.String() != f[2] {
				return fmt.Errorf("is in state %s after %s", got, w.now.Sub(start))
			}
		}
	case "probes":
		least, _ := strconv.Atoi(f[2])
		most, _ := strconv.Atoi(f[3])
		n := w.sent[f[1]]
		w.sent[f[1]] = 0
		if n < least || n > most {
			return fmt.Errorf("sent %d", n)
		}
	default:
		return fmt.Errorf("what is %s?", f[0])
	}
	return nil
}

func duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		panic(err)
	}
	return d
}

// tick advances the clock by one tick, or to the next event, but not beyond end.
func (w *world) tick(end time.Time) {
	next := w.now.Add(tick)
	if len(w.flying) == 0 && !w.busy {
		next = end
		for _, p := range w.paths {
			if due := p.Due(); due.Before(next) {
				next = due
			}
		}
	}
	if next.After(w.now) {
		w.now = next
	} else {
		w.now = w.now.Add(tick)
	}
	var later []flight
	for _, f := range w.flying {
		p := w.paths[f.to]
		switch {
		case f.at.After(w.now):
			later = append(later, f)
		case p != nil:
			if reply, ok := p.Receive(f.probe, w.now); ok {
				later = append(later, w.route(f.to, reply)...)
			}
		}
	}
	w.flying = later
	for _, name := range []string{"a", "b"} {
		p := w.paths[name]
		if p == nil {
			continue
		}
		if w.busy {
			p.Traffic(w.now)
		}
		if to := other(name); p.Doubtful() && w.paths[to] != nil && !w.stopped[to] {
			p.Heard(w.now, w.now)
		}
		if probe, ok := p.Next(w.now); ok {
			w.sent[name]++
			w.fly(name, probe)
		}
	}
}

func other(name string) string {
	if name == "a" {
		return "b"
	}
	return "a"
}

// route returns the arrival of a probe that the node sends, none if it is lost.
func (w *world) route(from string, p Probe) []flight {
	if w.cut[from] || w.rand.IntN(100) < w.loss {
		return nil
	}
	return []flight{{other(from), w.now.Add(w.latency), p}}
}

func (w *world) fly(from string, p Probe) { w.flying = append(w.flying, w.route(from, p)...) }

// TestPathAnswersNoFlood: whatever a peer sends, it gets few replies, and none to an invalid probe.
func TestPathAnswersNoFlood(t *testing.T) {
	now := time.Unix(1e9, 0)
	p := NewPath(rand.Uint64, now)
	answers := 0
	for i := range 1000 {
		if _, ok := p.Receive(Probe{Nonce: uint64(i + 1)}, now.Add(time.Duration(i)*time.Millisecond)); ok {
			answers++
		}
	}
	if answers > 51 {
		t.Errorf("%d answers in a second", answers)
	}
	if _, ok := p.Receive(Probe{}, now.Add(time.Hour)); ok {
		t.Error("an answer to no nonce")
	}
}

// TestPathForged: echoes of nonces that were not sent, or sent before, prove nothing.
func TestPathForged(t *testing.T) {
	now := time.Unix(1e9, 0)
	p := NewPath(rand.Uint64, now)
	var last Probe
	for range 1000 {
		now = now.Add(50 * time.Millisecond)
		if probe, ok := p.Next(now); ok {
			last = probe
		}
		for _, echo := range []uint64{0, 1, last.Nonce + 2} {
			p.Receive(Probe{Reply: true, Willing: true, Echo: echo}, now)
		}
		if p.State() == Carrying {
			t.Fatal("proven by forged answers")
		}
	}
	for p.State() != Probing {
		now = now.Add(time.Second)
		last, _ = p.Next(now)
	}
	for range 10 {
		p.Receive(Probe{Reply: true, Willing: true, Echo: last.Nonce}, now)
	}
	if p.State() == Carrying {
		t.Error("proven by one answer, repeated")
	}
}
