package liveness

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"weft/internal/peer"
)

// TestScripts runs the scripts in testdata/scripts against one Link and one Coordinator. Every step prints its effects,
// so each script states the behavior (go test -rewrite writes the outcome anew, for review).
//
//	observe FIELD...            replaces the Observation: direct, relayed, session, keep, silent, unanswered=N,
//	                            configured=ADDR, proven=ADDR, observed=ADDR
//	run D [answer=HOW] [delay=D]
//	                            time passes, with a Tick every TickInterval; prints the ticks that have effects. Probes are
//	                            answered HOW: directly, over a relay, or not at all (direct, relay, none; none by default)
//	reply TOKEN HOW             an answer to the probe with a token; the nth probe has the token n. Of a set of probes, those
//	                            to the first address are answered
//	response                    the peer has answered an initiation
//	punch ADDR                  a hole punch starts
//	state                       prints the state
//	coordinate A B [times=N]    asks for a hole punch between two peers; prints how many of N requests started one
//	fill N                      asks for hole punches of N other pairs
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		w := &world{link: New(), now: time.Unix(1_700_000_000, 0)}
		w.start = w.now
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return w.command(t, d) })
	})
}

// world drives one Link with a simulated clock.
type world struct {
	link        *Link
	coordinator Coordinator
	observation Observation
	start, now  time.Time
	tokens      uint32
	replies     []reply
	out         strings.Builder
}

// reply is an answer that is under way.
type reply struct {
	at     time.Time
	token  uint32
	direct bool
}

func (w *world) command(t *testing.T, d *datadriven.TestData) string {
	w.out.Reset()
	switch d.Cmd {
	case "observe":
		w.observation = observationOf(t, d)
	case "run":
		w.run(t, d)
	case "reply":
		token, err := strconv.Atoi(d.CmdArgs[0].Key)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		w.handleReply(uint32(token), d.CmdArgs[1].Key == "direct")
	case "response":
		w.changes(func() { w.link.HandleResponse() })
	case "punch":
		if !w.link.StartPunch(netip.MustParseAddrPort(d.CmdArgs[0].Key), w.now) {
			w.print("refused")
		}
	case "state":
		w.print("%s", w.link.State())
	case "coordinate":
		times, started := 1, 0
		d.MaybeScanArgs(t, "times", &times)
		for range times {
			if w.coordinator.Start(peer.ID{d.CmdArgs[0].Key[0]}, peer.ID{d.CmdArgs[1].Key[0]}, w.now) {
				started++
			}
		}
		w.print("started %d of %d, %d pairs remembered", started, times, len(w.coordinator.started))
	case "fill":
		var n int
		if _, err := fmt.Sscan(d.CmdArgs[0].Key, &n); err != nil {
			d.Fatalf(t, "%v", err)
		}
		for i := range n {
			w.coordinator.Start(peer.ID{1, byte(i), byte(i >> 8)}, peer.ID{2}, w.now)
		}
		w.print("%d pairs remembered", len(w.coordinator.started))
	default:
		d.Fatalf(t, "unknown command %s", d.Cmd)
	}
	return w.out.String()
}

// run lets time pass. The clock of the ticks does not start anew with each command.
func (w *world) run(t *testing.T, d *datadriven.TestData) {
	length, err := time.ParseDuration(d.CmdArgs[0].Key)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	how, delay := "none", "10ms"
	d.MaybeScanArgs(t, "answer", &how)
	d.MaybeScanArgs(t, "delay", &delay)
	roundTrip, err := time.ParseDuration(delay)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	for end := w.now.Add(length); w.now.Before(end); {
		next := w.now.Add(TickInterval)
		w.deliver(next)
		w.now = next
		w.tick(how, roundTrip)
	}
	w.deliver(w.now)
}

// deliver handles the replies that arrive until end.
func (w *world) deliver(end time.Time) {
	for len(w.replies) > 0 && w.replies[0].at.Before(end) {
		r := w.replies[0]
		w.replies = w.replies[1:]
		w.now = r.at
		w.handleReply(r.token, r.direct)
	}
}

func (w *world) tick(how string, roundTrip time.Duration) {
	var a Actions
	w.changes(func() {
		a = w.link.Tick(w.observation, w.now, func() uint32 { w.tokens++; return w.tokens })
	})
	if a.RequestSession {
		w.print("request session")
	}
	if a.UseSession {
		w.print("use session")
	}
	if len(a.Probes) == 0 {
		return
	}
	for _, p := range a.Probes {
		w.print("probe %d to %s", p.Token, p.Addr)
	}
	if how != "none" {
		w.replies = append(w.replies, reply{w.now.Add(roundTrip), a.Probes[0].Token, how == "direct"})
	}
}

func (w *world) handleReply(token uint32, direct bool) {
	w.changes(func() {
		switch at, works := w.link.HandleReply(token, direct); {
		case works:
			w.print("reply %d: the link works at %s", token, at)
		case at.IsValid():
			w.print("reply %d", token)
		default:
			w.print("reply %d: not of the last probe", token)
		}
	})
}

// changes prints the change of state that f makes.
func (w *world) changes(f func()) {
	before := w.link.State()
	f()
	if after := w.link.State(); after != before {
		w.print("%s -> %s", before, after)
	}
}

func (w *world) print(format string, args ...any) {
	fmt.Fprintf(&w.out, "%6.2fs  %s\n", w.now.Sub(w.start).Seconds(), fmt.Sprintf(format, args...))
}

func observationOf(t *testing.T, d *datadriven.TestData) (o Observation) {
	for _, arg := range d.CmdArgs {
		switch arg.Key {
		case "direct":
			o.Direct = true
		case "relayed":
			o.Relayed = true
		case "session":
			o.Session = true
		case "keep":
			o.Keep = true
		case "silent":
			o.Silent = true
		case "unanswered":
			d.ScanArgs(t, "unanswered", &o.Unanswered)
		case "configured":
			o.Configured = netip.MustParseAddrPort(arg.Vals[0])
		case "proven":
			o.Proven = netip.MustParseAddrPort(arg.Vals[0])
		case "observed":
			o.Observed = netip.MustParseAddrPort(arg.Vals[0])
		default:
			d.Fatalf(t, "unknown field %s", arg.Key)
		}
	}
	return o
}

func TestStateNames(t *testing.T) {
	seen := map[string]bool{}
	for s := range State(5) {
		if name := s.String(); (s == 0 || s > Broken) != (name == "invalid") || seen[name] && name != "invalid" {
			t.Errorf("state %d is named %q", s, name)
		} else {
			seen[name] = true
		}
	}
}

// TestSummaryIsBounded: the lists are sorted and bounded, and two summaries with the same lists are equal.
func TestSummaryIsBounded(t *testing.T) {
	var s, again Summary
	for i := range 3 * MaxBroken {
		s.Add(peer.ID{byte(255 - i)}, State(1+i%3))
		again.Add(peer.ID{byte(255 - (3*MaxBroken - 1 - i))}, State(1+(3*MaxBroken-1-i)%3))
	}
	s.Finish()
	again.Finish()
	if len(s.Broken) != MaxBroken || len(s.Open) != MaxOpen || !s.Equal(again) || s.Equal(Summary{}) {
		t.Errorf("%d broken, %d open, %+v, %+v", len(s.Broken), len(s.Open), s, again)
	}
	for _, list := range [][]peer.ID{s.Broken, s.Open} {
		for i := range list[1:] {
			if list[i].Compare(list[i+1]) >= 0 {
				t.Errorf("not sorted: %v", list)
			}
		}
	}
}
