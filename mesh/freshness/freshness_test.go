package freshness

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"weft/internal/peer"
	"weft/mesh/seal"
)

var start = time.Unix(1_000_000, 0)

// counted returns nonces that differ.
func counted() func() seal.Nonce {
	n := uint64(0)
	return func() (nonce seal.Nonce) {
		n++
		binary.BigEndian.PutUint64(nonce[:], n)
		return nonce
	}
}

// TestScripts plays testdata. Times are since the start of the table, uptimes those of the sender.
//
//	new                                           a table that watches from now on
//	at T                                          sets the time
//	packet NAME/RUN counter=C up=U [lost]         a packet, and what becomes of it
//	answer NAME/RUN counter=C up=U [nonce=N]      the answer to the latest challenge of the instance
//	stream NAME/RUN counter=C up=U asked=T        the handshake of a stream
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		table, now := New[string](start, counted()), start
		nonces := map[Instance]seal.Nonce{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			for line := range strings.Lines(d.Cmd + "\n" + d.Input) {
				words := strings.Fields(line)
				if len(words) == 0 || words[0] == "run" {
					continue
				}
				fmt.Fprintf(&out, "%s: ", strings.Join(words, " "))
				switch words[0] {
				case "new":
					table = New[string](now, counted())
					out.WriteString("ok")
				case "at":
					now = start.Add(duration(t, words[1]))
					out.WriteString("ok")
				case "packet":
					from, stamp, _ := parse(t, words)
					v, nonce, challenge := table.Receive(from, stamp, fmt.Sprint(stamp.Counter), now)
					out.WriteString([]string{"", "fresh", "replayed", "unproven"}[v])
					if challenge {
						nonces[from] = nonce
						out.WriteString(", challenge")
					}
				case "answer":
					from, stamp, _ := parse(t, words)
					held, ok := table.Answer(from, nonces[from], stamp, now)
					fmt.Fprintf(&out, "%v, releases %v", ok, held)
				case "stream":
					from, stamp, asked := parse(t, words)
					fmt.Fprintf(&out, "releases %v", table.Admit(from, stamp, asked, now))
				default:
					t.Fatalf("unknown command %q", words[0])
				}
				if n := table.TakeLost(); n > 0 {
					fmt.Fprintf(&out, ", %d lost", n)
				}
				out.WriteString("\n")
			}
			return out.String()
		})
	})
}

func duration(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func parse(t *testing.T, words []string) (from Instance, stamp Stamp, asked time.Time) {
	t.Helper()
	from = Instance{Node: peer.ID{words[1][0]}, Run: uint64(words[1][2] - '0')}
	for _, w := range words[2:] {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "counter":
			if _, err := fmt.Sscan(value, &stamp.Counter); err != nil {
				t.Fatal(err)
			}
		case "up":
			stamp.Uptime = duration(t, value)
		case "asked":
			asked = start.Add(duration(t, value))
		}
	}
	return from, stamp, asked
}

// TestBounds: whatever arrives, the table keeps no more than its bounds.
func TestBounds(t *testing.T) {
	table := New[int](start, counted())
	now := start
	for i := range uint64(3 * MaxHeld) {
		now = now.Add(100 * time.Microsecond)
		for c := range uint64(2) {
			table.Receive(Instance{Node: peer.ID{1}, Run: i}, Stamp{Counter: c}, 0, now)
		}
		if table.held > MaxHeld || len(table.pending) > MaxHeld || table.oldest.Len() != len(table.pending) {
			t.Fatalf("%d held of %d instances", table.held, len(table.pending))
		}
	}
	for i := range uint64(MaxInstances + 100) {
		id := peer.ID{}
		binary.BigEndian.PutUint64(id[:], i/3)
		table.Admit(Instance{Node: id, Run: i}, Stamp{}, now, now)
	}
	for i := range uint64(100) {
		table.Admit(Instance{Node: peer.ID{9, 9}, Run: i}, Stamp{}, now, now)
	}
	if len(table.known) != MaxInstances || table.recent.Len() != MaxInstances || table.byNode[peer.ID{9, 9}] != PerNode {
		t.Errorf("%d instances, %d of one node", len(table.known), table.byNode[peer.ID{9, 9}])
	}
	if len(table.byNode) > len(table.known) {
		t.Error("nodes without an instance are kept")
	}
}

// TestChallengesAreBounded: a flood of packets of unknown instances causes a bounded number of challenges a second.
func TestChallengesAreBounded(t *testing.T) {
	table := New[int](start, counted())
	challenges := 0
	for i := range uint64(5 * ChallengesPerSecond) {
		if _, _, c := table.Receive(Instance{Run: i}, Stamp{}, 0, start.Add(time.Millisecond)); c {
			challenges++
		}
	}
	if challenges != ChallengesPerSecond {
		t.Errorf("%d challenges", challenges)
	}
}

// TestNothingIsDeliveredTwice: a receiver that restarts and forgets, a path that loses, delays, repeats and reorders, and a
// sender that restarts: no packet is delivered twice, as long as no earlier run of the receiver could have delivered it.
func TestNothingIsDeliveredTwice(t *testing.T) {
	type sent struct {
		from  Instance
		stamp Stamp
	}
	rapid.Check(t, func(t *rapid.T) {
		now, born, run, counter := start, start, uint64(1), uint64(0)
		table := New[sent](now, counted())
		var recorded []sent
		nonces := map[Instance]seal.Nonce{}
		delivered := map[sent]bool{}
		deliver := func(ps ...sent) {
			for _, p := range ps {
				if delivered[p] {
					t.Fatalf("delivered twice: %+v", p)
				}
				delivered[p] = true
			}
		}
		receive := func(p sent) {
			v, nonce, challenge := table.Receive(p.from, p.stamp, p, now)
			if v == Fresh {
				deliver(p)
			}
			if challenge {
				nonces[p.from] = nonce
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 4000).Draw(t, "ms")) * time.Millisecond)
			self := Instance{Node: peer.ID{1}, Run: run}
			stamp := Stamp{Counter: counter, Uptime: now.Sub(born)}
			switch rapid.IntRange(0, 9).Draw(t, "event") {
			case 0:
				table = New[sent](now, counted())
			case 1:
				born, counter, run = now, 0, run+1
			case 2:
				deliver(table.Admit(self, stamp, now, now)...)
			case 3, 4:
				held, _ := table.Answer(self, nonces[self], stamp, now)
				deliver(held...)
			case 5:
				table.Admit(Instance{Node: peer.ID{1}, Run: rapid.Uint64Range(100, 110).Draw(t, "forged")}, Stamp{}, now, now)
			default:
				counter++
				p := sent{self, Stamp{Counter: counter, Uptime: now.Sub(born)}}
				recorded = append(recorded, p)
				if rapid.Bool().Draw(t, "arrives") {
					receive(p)
				}
			}
			for range 2 {
				if len(recorded) > 0 {
					receive(recorded[rapid.IntRange(0, len(recorded)-1).Draw(t, "again")])
				}
			}
		}
	})
}

// TestForgedCounters: counters of the future, which only another holder of the secret can forge, cut an instance off for no
// longer than one challenge.
func TestForgedCounters(t *testing.T) {
	table := New[uint64](start, counted())
	from := Instance{Node: peer.ID{1}, Run: 1}
	now := start.Add(time.Minute)
	up := func() time.Duration { return now.Sub(start) }
	table.Admit(from, Stamp{10, up()}, now, now)
	if v, _, _ := table.Receive(from, Stamp{1 << 60, up()}, 0, now); v != Fresh {
		t.Fatal("the forged packet is not taken: the test tests nothing")
	}
	now = now.Add(time.Second)
	v, nonce, challenge := table.Receive(from, Stamp{11, up()}, 11, now)
	if v != Unproven || !challenge {
		t.Fatalf("verdict %d, challenge %v", v, challenge)
	}
	if _, ok := table.Answer(from, nonce, Stamp{12, up()}, now); !ok {
		t.Fatal("the answer is not taken")
	}
	now = now.Add(time.Second)
	if v, _, _ := table.Receive(from, Stamp{13, up()}, 13, now); v != Fresh {
		t.Errorf("verdict %d after the challenge", v)
	}
	if v, _, _ := table.Receive(from, Stamp{10, up() - 5*time.Second}, 10, now); v != Replayed {
		t.Errorf("verdict %d on a packet from before", v)
	}
}
