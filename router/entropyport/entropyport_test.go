package entropyport

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var (
	home  = Endpoint{Addr: netip.MustParseAddrPort("192.0.2.2:6784"), Session: 1}
	moved = Endpoint{Addr: netip.MustParseAddrPort("192.0.2.3:6784"), Session: 1}
)

const (
	tick = 200 * time.Millisecond
	size = 1472
)

// driver moves a Path on in ticks, as the engine does.
type driver struct {
	Path
	now    time.Time
	to     Endpoint
	size   int
	token  uint32
	probes []Probe // sent
}

func newDriver() *driver { return &driver{now: time.Unix(1_700_000_000, 0), to: home, size: size} }

// step moves on by a tick. used: there are frames. answers: the peer answers. It reports whether a probe left.
func (d *driver) step(used, answers bool) (sent bool) {
	d.now = d.now.Add(tick)
	if used {
		d.Carries(d.to.Addr)
	}
	p, ok := d.Next(d.to, d.size, d.now, func() uint32 { d.token++; return d.token })
	if ok {
		d.probes = append(d.probes, p)
		if answers {
			d.Answered(p, d.now)
		}
	}
	return ok
}

// run steps for a time, with frames, and returns when probes left, in ticks.
func (d *driver) run(length time.Duration, used, answers bool) (at []int) {
	for i := range int(length / tick) {
		if d.step(used, answers) {
			at = append(at, i)
		}
	}
	return at
}

func proven(t *testing.T, d *driver, want bool, when string) {
	t.Helper()
	if got, _ := d.Carries(d.to.Addr); got != want {
		t.Errorf("%s: carries %v, want %v", when, got, want)
	}
	if ok, _ := d.Carries(moved.Addr); ok && d.to != moved {
		t.Errorf("%s: proven for an address without a probe", when)
	}
	d.used.Store(false) // the test has looked, there were no frames
}

func same(t *testing.T, what string, got, want []int) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: probes at ticks %v, want %v", what, got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: probes at ticks %v, want %v", what, got, want)
		}
	}
}

// TestProof: a port is probed only while there are frames, proven by an answer, and confirmed every 3 s.
func TestProof(t *testing.T) {
	d := newDriver()
	same(t, "no frames", d.run(time.Minute, false, true), nil)
	same(t, "frames", d.run(10*time.Second, true, true), []int{0, 15, 30, 45})
	proven(t, d, true, "answered")
	same(t, "no frames again", d.run(8*time.Second, false, true), nil)
	proven(t, d, true, "idle for 9 s")
	d.run(2*time.Second, false, true)
	if d.Proven() {
		t.Error("proven although idle for longer than an answer lasts")
	}
	same(t, "frames again", d.run(time.Second, true, true), []int{0})
	proven(t, d, true, "answered again")
}

// TestUnanswered: the probes of a port that is not proven back off to 30 s, and never prove it.
func TestUnanswered(t *testing.T) {
	d := newDriver()
	at := d.run(2*time.Minute, true, false)
	same(t, "unanswered", at, []int{0, 5, 15, 35, 75, 155, 305, 455})
	proven(t, d, false, "unanswered")
}

// TestOldPeer: a peer that never answers is probed once in 30 s, also when sessions are renewed.
func TestOldPeer(t *testing.T) {
	d := newDriver()
	d.run(5*time.Minute, true, false)
	probes := 0
	for range 30 {
		d.to.Session++
		probes += len(d.run(2*time.Minute, true, false))
	}
	if probes > 120 {
		t.Errorf("%d probes in an hour", probes)
	}
}

// TestLoss: one or two probes without an answer change nothing, three end the proof within 5 s.
func TestLoss(t *testing.T) {
	d := newDriver()
	d.run(time.Second, true, true)
	d.run(3*time.Second, true, false)
	proven(t, d, true, "one probe lost")
	d.run(400*time.Millisecond, true, true)
	proven(t, d, true, "the second answered")
	ended := time.Duration(0)
	for ; d.Proven() && ended < time.Minute; ended += tick {
		d.step(true, false)
	}
	if ended > 5*time.Second {
		t.Errorf("the proof ended after %s", ended)
	}
	if n := len(d.run(3*time.Second, true, false)); n > 1 {
		t.Errorf("%d probes in 3 s after the end of the proof", n)
	}
}

// TestEnds: another address and longer datagrams end the proof at once. Another session lets it last for 2 s without an answer.
func TestEnds(t *testing.T) {
	for name, change := range map[string]func(*driver){
		"moved":    func(d *driver) { d.to = moved },
		"relayed":  func(d *driver) { d.to = Endpoint{} },
		"longer":   func(d *driver) { d.size++ },
		"followed": func(d *driver) { d.to = Endpoint{Addr: moved.Addr, Session: 2} },
	} {
		d := newDriver()
		d.run(time.Second, true, true)
		change(d)
		sent := d.step(true, false)
		if d.Proven() || sent != d.to.Addr.IsValid() {
			t.Errorf("%s: proven %v, a probe left %v", name, d.Proven(), sent)
		}
		d.run(2*time.Second, true, true)
		if d.Proven() != d.to.Addr.IsValid() {
			t.Errorf("%s: proven %v after answers", name, d.Proven())
		}
	}
	d := newDriver()
	d.run(time.Second, true, true)
	d.to.Session++
	if !d.step(true, false) || !d.Proven() {
		t.Error("a new session ends the proof, or is not probed at once")
	}
	d.run(1800*time.Millisecond, true, false)
	proven(t, d, false, "a new session without an answer")
	d = newDriver()
	d.run(time.Second, true, true)
	d.size -= 100
	d.step(true, false)
	proven(t, d, true, "shorter datagrams")
}

// TestAnswers: only the answer to a probe of the present endpoint, with its token and size, and in time, proves the port; and once.
func TestAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(d *driver, p *Probe)
		want   bool
	}{
		"answer":        {func(*driver, *Probe) {}, true},
		"other token":   {func(_ *driver, p *Probe) { p.Token++ }, false},
		"no token":      {func(_ *driver, p *Probe) { *p = Probe{} }, false},
		"other size":    {func(_ *driver, p *Probe) { p.Size-- }, false},
		"too late":      {func(d *driver, _ *Probe) { d.now = d.now.Add(answerWithin) }, false},
		"after a move":  {func(d *driver, _ *Probe) { d.to = moved; d.step(false, false) }, false},
		"after another": {func(d *driver, _ *Probe) { d.run(2*time.Second, true, false) }, true},
	} {
		d := newDriver()
		d.step(true, false)
		p := d.probes[0]
		tt.change(d, &p)
		d.Answered(p, d.now)
		proven(t, d, tt.want, name)
	}
	d := newDriver()
	d.step(true, true)
	d.run(11*time.Second, false, false)
	d.Answered(d.probes[0], d.now)
	proven(t, d, false, "an answer a second time")
}

// TestClock: a clock that is set back neither stops the probes nor prolongs a proof.
func TestClock(t *testing.T) {
	d := newDriver()
	d.run(time.Second, true, true)
	d.now = d.now.Add(-time.Hour)
	d.step(false, false)
	if d.Proven() {
		t.Error("proven by an answer of the future")
	}
	same(t, "set back", d.run(time.Second, true, true)[:1], []int{0})
}

// TestModel: whatever happens, frames leave only from a port that was proven for the present address within the last 10 s, for datagrams
// of at least the present length. Two probes are 500 ms apart, or 1 s while the port is not proven, but for one after a change.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDriver()
		var answered time.Time // the last answer of the present address with the present length
		var last time.Time     // the last probe
		changed := true
		for range rapid.IntRange(1, 300).Draw(t, "ticks") {
			switch rapid.IntRange(0, 40).Draw(t, "event") {
			case 0:
				if to := rapid.SampledFrom([]netip.AddrPort{home.Addr, moved.Addr, {}}).Draw(t, "to"); to != d.to.Addr {
					d.to.Addr, changed, answered = to, true, time.Time{}
				}
			case 1:
				d.size, changed, answered = d.size+1, true, time.Time{}
			case 2:
				d.to.Session++
				changed = true
			}
			before := d.Proven()
			if sent := d.step(rapid.Bool().Draw(t, "used"), false); sent {
				least := firstPause
				if before {
					least = retryAfter
				}
				if pause := d.now.Sub(last); !changed && pause < least {
					t.Fatalf("a probe %s after another", pause)
				}
				last, changed = d.now, false
				if rapid.Bool().Draw(t, "answers") {
					d.Answered(d.probes[len(d.probes)-1], d.now)
					answered = d.now
				}
			}
			if ok, _ := d.Carries(d.to.Addr); ok && (answered.IsZero() || d.now.Sub(answered) >= proofLasts) {
				t.Fatal("frames leave from a port that is not proven")
			}
			d.used.Store(false)
		}
	})
}
