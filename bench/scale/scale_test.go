package scale

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// quick are options for a network of a few nodes, with a loss that shows whether repetitions work.
func quick() Options {
	return Options{
		Idle: 30 * time.Second, Limit: 2 * time.Minute, Latency: time.Millisecond, Jitter: time.Millisecond, Loss: 0.01, Seed: 1,
	}
}

// TestRun takes a small network through all phases: all views become one again, and Run fails if a lease is lost or given twice.
func TestRun(t *testing.T) {
	o, progress := quick(), &bytes.Buffer{}
	o.Nodes, o.Profiles = []int{12}, t.TempDir()
	began := time.Now()
	results, err := Run(t.Context(), o, progress)
	t.Logf("%s of real time\n%s", time.Since(began), progress)
	if err != nil {
		t.Fatal(err)
	}
	r := results[0]
	if want := 12 * (podsPerNode + 1); r.Leases != want {
		t.Errorf("%d leases, want %d", r.Leases, want)
	}
	for _, name := range []string{PhaseStart, PhaseIdle, PhaseChurn, PhaseRolling, PhasePartition, PhaseHeal} {
		p := r.Phase(name)
		if p.Seconds <= 0 || p.PacketBytes <= 0 || p.Streams <= 0 || p.CPU <= 0 || p.Busiest < p.Bytes() {
			t.Errorf("%s: %+v", name, p)
		}
	}
	if seconds := r.Phase(PhaseIdle).Seconds; seconds != o.Idle.Seconds() {
		t.Errorf("the idle phase took %v s of virtual time", seconds)
	}
	for _, file := range []string{"12-start.pprof", "12-rolling-restart.pprof", "12-heap.pprof"} {
		if info, err := os.Stat(filepath.Join(o.Profiles, file)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", file, err)
		}
	}
	page := filepath.Join(t.TempDir(), "PAGE.md")
	if err := os.WriteFile(page, []byte("# A page\n\n"+Heading+"\n\nold\n\n## Next\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteDoc(results, page); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil || !strings.Contains(string(text), "| 12 |") || strings.Contains(string(text), "\nold\n") ||
		!strings.HasSuffix(string(text), "## Next\n") {
		t.Errorf("%v, page:\n%s", err, text)
	}
}

// TestLeaseCheck: the check at the end finds an address with two leases, and a lease that is gone.
func TestLeaseCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := quick()
		o.Logger = slog.New(slog.DiscardHandler)
		s := &simulation{ctx: t.Context(), o: o, dice: rand.New(rand.NewPCG(1, 0)), errs: make(chan error, 1)}
		if err := s.build(2); err != nil {
			t.Fatal(err)
		}
		r := &run{simulation: s, meter: newMeter(s.hosts)}
		if err := s.startAll(r); err != nil {
			t.Fatal(err)
		}
		if leases, err := checkLeases(s.nodes); err != nil || leases != 2*podsPerNode {
			t.Errorf("%d leases, %v", leases, err)
		}
		a, b := s.nodes[0].process.Load(), s.nodes[1].process.Load()
		if err := a.ipam.Release("pod-0", a.ipam.Leases()[0].Addr); err != nil {
			t.Error(err)
		}
		if _, err := checkLeases(s.nodes); err == nil || !strings.Contains(err.Error(), "lost the lease") {
			t.Errorf("a lease is gone: %v", err)
		}
		s.nodes[0].process.Store(b)
		if _, err := checkLeases(s.nodes); err == nil || !strings.Contains(err.Error(), "is leased by") {
			t.Errorf("each address has two leases: %v", err)
		}
		s.nodes[0].process.Store(a)
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestStream: a stream has the latency of the network and the order of its bytes, and obeys deadlines and partitions.
func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := quick()
		o.Latency, o.Jitter, o.Loss = 20*time.Millisecond, 5*time.Millisecond, 0
		hosts := newHosts(2, o)
		there := hosts[1].listen()
		began := time.Now()
		near, err := hosts[0].listen().DialTimeout(hosts[1].addr.String(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		far := <-there.StreamCh()
		for _, text := range []string{"ab", "cd"} {
			if _, err := near.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		got := make([]byte, 4)
		for i := range got { // a byte at a time
			if _, err := far.Read(got[i : i+1]); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); string(got) != "abcd" || took < 60*time.Millisecond || took > 75*time.Millisecond {
			t.Errorf("%q after %s", got, took)
		}
		if err := far.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Error(err)
		}
		hosts[1].side.Store(1)
		if _, err := near.Write([]byte("lost")); err != nil {
			t.Error(err)
		}
		if _, err := far.Read(got); !os.IsTimeout(err) {
			t.Errorf("read through a partition: %v", err)
		}
		if _, err := there.DialTimeout(hosts[0].addr.String(), time.Second); err == nil {
			t.Error("dialed through a partition")
		}
		if hosts[0].sent() != (traffic{Streams: 1, StreamBytes: 8}) {
			t.Errorf("counted %+v", hosts[0].sent())
		}
		if err := far.Close(); err != nil {
			t.Error(err)
		}
		if _, err := near.Write([]byte("x")); err == nil {
			t.Error("wrote to an end that is closed")
		}
	})
}

// TestSeed: the same seed has the same decisions for each message of a host.
func TestSeed(t *testing.T) {
	decisions := func(seed uint64) (list []time.Duration, losses int) {
		o := quick()
		o.Loss, o.Seed = 0.25, seed
		hosts := newHosts(2, o)
		for range 1000 {
			delay, lost := hosts[1].decide()
			if lost {
				losses++
			}
			list = append(list, delay)
		}
		return list, losses
	}
	a, lost := decisions(7)
	b, _ := decisions(7)
	c, _ := decisions(8)
	same, other := 0, 0
	for i := range a {
		if a[i] == b[i] {
			same++
		}
		if a[i] == c[i] {
			other++
		}
	}
	if same != len(a) || other > 10 || lost < 200 || lost > 300 {
		t.Errorf("%d the same, %d as with another seed, %d lost", same, other, lost)
	}
}
