package vxlan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"weft/internal/ether"
	"weft/internal/peer"
)

// underlay connects fake devices: it delivers probes at once, or loses them.
type underlay struct {
	mu      sync.Mutex
	devices map[peer.ID]*fakeDevice
	broken  bool
}

// fakeDevice is a Backend in memory. It records all calls.
type fakeDevice struct {
	underlay *underlay
	self     peer.ID
	in       chan Probe

	mu     sync.Mutex
	log    []string
	frames uint64
	fail   error // of Carry and SetPeers
	gone   bool
	off    bool
	closed bool
	silent bool // the daemon of the device answers nothing
}

var _ Backend = (*fakeDevice)(nil)

func (u *underlay) device(id peer.ID) *fakeDevice {
	d := &fakeDevice{underlay: u, self: id, in: make(chan Probe, 100)}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.devices[id] = d
	return d
}

func (d *fakeDevice) record(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, fmt.Sprintf(format, args...))
}

// calls returns the calls recorded since the last call of calls.
func (d *fakeDevice) calls() (log []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	log, d.log = d.log, nil
	return log
}

func (d *fakeDevice) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func (d *fakeDevice) SetPeers(_ context.Context, peers []Peer) ([]Peer, error) {
	d.record("peers %d", len(peers))
	d.mu.Lock()
	defer d.mu.Unlock()
	return peers, d.fail
}

func (d *fakeDevice) Carry(id peer.ID, on bool, macs []ether.Addr) error {
	d.record("carry %x %v %v", id[0], on, macs)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fail
}

func (d *fakeDevice) Send(p Probe) error {
	d.underlay.mu.Lock()
	defer d.underlay.mu.Unlock()
	silent := false
	d.set(func() { d.frames++; silent = d.silent })
	to := d.underlay.devices[p.To]
	if to == nil || d.underlay.broken || silent {
		return nil
	}
	to.mu.Lock()
	defer to.mu.Unlock()
	if !to.closed && !to.silent {
		to.frames++
		to.in <- p
	}
	return nil
}

func (d *fakeDevice) Receive() (Probe, error) {
	p, ok := <-d.in
	if !ok {
		return Probe{}, net.ErrClosed
	}
	return p, nil
}

func (d *fakeDevice) Sample() (Sample, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone {
		return Sample{}, ErrGone
	}
	return Sample{Ready: !d.off, Frames: d.frames}, nil
}

func (d *fakeDevice) Ensure(context.Context) error { return nil }
func (d *fakeDevice) Keep()                        {}

func (d *fakeDevice) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	close(d.in)
	return nil
}

// station is a Controller on a fake device. It is the Router of its Controller.
type station struct {
	*Controller
	dev    *fakeDevice
	macs   []ether.Addr // the addresses that the router learned; guarded by dev.mu
	heard  time.Time    // when the peer was last heard in userspace; guarded by dev.mu
	cancel func()
	ended  chan error
}

func (u *underlay) station(t *testing.T, number byte, peers ...byte) *station {
	t.Helper()
	st := &station{dev: u.device(peer.ID{number}), ended: make(chan error, 1)}
	controller, err := New(ControllerConfig{Device: st.dev, Self: peer.ID{number}, Router: st, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	st.Controller = controller
	st.peers(peers...)
	ctx, cancel := context.WithCancel(t.Context())
	st.cancel = cancel
	go func() { st.ended <- controller.Run(ctx) }()
	return st
}

func (st *station) SetKernel(id peer.ID, on bool) { st.dev.record("change %x %v", id[0], on) }

func (st *station) ReleaseMACs(peer.ID) []ether.Addr {
	st.dev.mu.Lock()
	defer st.dev.mu.Unlock()
	macs := st.macs
	st.macs = nil
	return macs
}

// ProvePeer implements Router: daemons that run answer at once.
func (st *station) ProvePeer(id peer.ID) {
	u := st.dev.underlay
	u.mu.Lock()
	defer u.mu.Unlock()
	answers := u.devices[id] != nil
	for _, d := range []*fakeDevice{st.dev, u.devices[id]} {
		if d != nil {
			d.set(func() { answers = answers && !d.closed && !d.silent })
		}
	}
	if answers {
		st.dev.set(func() { st.heard = time.Now() })
	}
}

// LastHeard implements Router.
func (st *station) LastHeard(peer.ID) (at time.Time) {
	st.dev.set(func() { at = st.heard })
	return at
}

// states returns the states of the peers that the device reaches.
func (st *station) states() map[peer.ID]State {
	states := map[peer.ID]State{}
	for _, p := range st.Peers() {
		if p.Reached {
			states[p.ID] = p.State
		}
	}
	return states
}

func (st *station) peers(numbers ...byte) {
	var peers []Peer
	for _, n := range numbers {
		peers = append(peers, Peer{ID: peer.ID{n}, Addr: netip.AddrFrom4([4]byte{192, 0, 2, n})})
	}
	st.SetPeers(peers)
}

func (st *station) stop(t *testing.T) {
	t.Helper()
	st.cancel()
	if err := <-st.ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func (st *station) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, st.dev.calls()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func simulate(t *testing.T, f func(t *testing.T, u *underlay)) {
	t.Helper()
	defer goleak.VerifyNone(t)
	synctest.Test(t, func(t *testing.T) { f(t, &underlay{devices: map[peer.ID]*fakeDevice{}}) })
}

// TestControllerOrder: the kernel begins before userspace ends, and ends after userspace has begun.
func TestControllerOrder(t *testing.T) {
	simulate(t, func(t *testing.T, u *underlay) {
		a, b := u.station(t, 1, 2), u.station(t, 2, 1)
		a.dev.set(func() { a.macs = []ether.Addr{{2, 1}} })
		time.Sleep(3 * time.Second)
		a.expect(t, "peers 1", "carry 2 true [02:01:00:00:00:00]", "change 2 true")
		if got := a.states()[peer.ID{2}]; got != Kernel {
			t.Errorf("state %s", got)
		}
		if got := a.ProbeStats(); got.Sent < 6 || got.Received < 6 || got.Lost != 0 {
			t.Errorf("%+v", got)
		}
		a.dev.set(func() { a.macs = []ether.Addr{{2, 2}} })
		time.Sleep(2 * time.Second)
		a.expect(t, "carry 2 true [02:02:00:00:00:00]")
		b.dev.calls()
		b.stop(t)
		synctest.Wait()
		b.expect(t, "change 1 false", "carry 1 false []")
		time.Sleep(10 * time.Millisecond)
		a.expect(t, "change 2 false", "carry 2 false []")
		time.Sleep(time.Minute)
		if again := a.dev.calls(); len(again) < 2 || len(again) > 3 ||
			slices.ContainsFunc(again, func(s string) bool { return s != "carry 2 false []" }) {
			t.Errorf("within the purge time: %q", again)
		}
		a.stop(t)
		a.expect(t)
	})
}

func TestControllerLeavesBrokenPath(t *testing.T) {
	simulate(t, func(t *testing.T, u *underlay) {
		a, b := u.station(t, 1, 2), u.station(t, 2, 1)
		time.Sleep(5 * time.Second)
		a.dev.calls()
		stop := make(chan struct{})
		go func() { // traffic
			for {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
					a.dev.set(func() { a.dev.frames++ })
				}
			}
		}()
		time.Sleep(time.Second)
		u.mu.Lock()
		u.broken = true
		u.mu.Unlock()
		time.Sleep(time.Second)
		if log := a.dev.calls(); len(log) < 2 || log[0] != "change 2 false" || log[1] != "carry 2 false []" {
			t.Errorf("within a second: %q", log)
		}
		close(stop)
		a.stop(t)
		b.stop(t)
	})
}

// TestControllerKeepsSilentPeer: a peer with a dead daemon stays on the kernel path, and leaves it when userspace is proven while
// the kernel path is not.
func TestControllerKeepsSilentPeer(t *testing.T) {
	simulate(t, func(t *testing.T, u *underlay) {
		a, b := u.station(t, 1, 2), u.station(t, 2, 1)
		time.Sleep(5 * time.Second)
		a.dev.calls()
		b.dev.set(func() { b.dev.silent = true })
		time.Sleep(time.Minute)
		a.expect(t)
		if got := a.states()[peer.ID{2}]; got != Kernel {
			t.Errorf("state %s", got)
		}
		b.dev.set(func() { b.dev.silent = false })
		time.Sleep(10 * time.Second)
		a.expect(t)
		b.dev.set(func() { b.dev.silent = true })
		time.Sleep(time.Minute)
		u.mu.Lock()
		u.broken = true
		u.mu.Unlock()
		b.dev.set(func() { b.dev.silent = false })
		time.Sleep(2 * time.Second)
		if log := a.dev.calls(); len(log) < 2 || log[0] != "change 2 false" {
			t.Errorf("when userspace is proven: %q", log)
		}
		a.stop(t)
		b.stop(t)
	})
}

func TestControllerDevice(t *testing.T) {
	simulate(t, func(t *testing.T, u *underlay) {
		a, b, c := u.station(t, 1, 2, 3), u.station(t, 2, 1), u.station(t, 3, 1)
		defer b.stop(t)
		defer c.stop(t)
		time.Sleep(3 * time.Second)
		// Off the bridge: all peers move back within one sample.
		a.dev.calls()
		a.dev.set(func() { a.dev.off = true })
		time.Sleep(2 * gap)
		synctest.Wait()
		if log := strings.Join(a.dev.calls(), " "); strings.Count(log, "change") != 2 || strings.Contains(log, "true") {
			t.Errorf("%s", log)
		}
		a.dev.set(func() { a.dev.off = false })
		time.Sleep(5 * time.Second)
		// A removed peer gets a goodbye, another one stays.
		a.dev.calls()
		a.peers(3)
		time.Sleep(time.Second)
		a.expect(t, "change 2 false", "carry 2 false []", "peers 1")
		if diff := cmp.Diff(map[peer.ID]State{{3}: Kernel}, a.states()); diff != "" {
			t.Error(diff)
		}
		if got := b.states()[peer.ID{1}]; got == Kernel {
			t.Error("a removed peer still uses the kernel path")
		}
		// Deleted: Run returns the error.
		a.dev.set(func() { a.dev.gone = true })
		if err := <-a.ended; !errors.Is(err, ErrGone) {
			t.Errorf("Run: %v", err)
		}
		a.expect(t, "change 3 false", "carry 3 false []")
		a.cancel()
	})
}

// TestControllerFails: a peer that the device refuses is retried, and carried in userspace until then.
func TestControllerFails(t *testing.T) {
	simulate(t, func(t *testing.T, u *underlay) {
		a, b := u.station(t, 1), u.station(t, 2, 1)
		synctest.Wait()
		a.dev.set(func() { a.dev.fail = errors.New("no") })
		a.peers(2)
		time.Sleep(time.Minute)
		if len(a.states()) != 0 {
			t.Errorf("%v", a.states())
		}
		a.dev.set(func() { a.dev.fail = nil })
		time.Sleep(time.Second)
		a.dev.calls()
		time.Sleep(keepEvery)
		a.dev.set(func() { a.dev.fail = errors.New("no") })
		time.Sleep(time.Minute)
		log := strings.Join(a.dev.calls(), " ")
		moved := strings.Contains(log, "change 2 true") && !strings.Contains(log, "change 2 false")
		if moved && a.states()[peer.ID{2}] != Kernel {
			t.Errorf("%s", log)
		}
		a.dev.set(func() { a.dev.fail = nil })
		time.Sleep(5 * time.Minute)
		if a.states()[peer.ID{2}] != Kernel {
			t.Errorf("%v", a.states())
		}
		a.stop(t)
		b.stop(t)
	})
}

func TestControllerConfig(t *testing.T) {
	good := ControllerConfig{Device: &fakeDevice{}, Self: peer.ID{1}, Router: &station{}}
	for field, change := range map[string]func(*ControllerConfig){
		"Device": func(c *ControllerConfig) { c.Device = nil }, "Self": func(c *ControllerConfig) { c.Self = peer.ID{} },
		"Router": func(c *ControllerConfig) { c.Router = nil },
	} {
		c := good
		change(&c)
		if _, err := New(c); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestPeers: Peers and Carries report each requested peer, whether it is reached or not, and since when.
func TestPeers(t *testing.T) {
	simulate(t, func(t *testing.T, u *underlay) {
		start := time.Now()
		a, b := u.station(t, 1, 2, 9), u.station(t, 2, 1)
		expect := func(want ...PeerStatus) {
			t.Helper()
			synctest.Wait()
			if diff := cmp.Diff(want, a.Peers()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, p := range want {
				if a.Carries(p.ID) != (p.State == Kernel) {
					t.Errorf("carries %s: %v", p.ID, a.Carries(p.ID))
				}
			}
		}
		unreached := PeerStatus{ID: peer.ID{9}, State: Probing, Reached: true, Since: start}
		time.Sleep(3 * time.Second)
		list := a.Peers()
		if len(list) != 2 || !list[0].Since.After(start) {
			t.Fatalf("%+v", list)
		}
		moved := list[0].Since
		unreached.State = list[1].State
		expect(PeerStatus{ID: peer.ID{2}, State: Kernel, Reached: true, Since: moved}, unreached)
		a.dev.set(func() { a.dev.fail = errors.New("no") })
		a.peers(2, 3)
		time.Sleep(time.Second)
		expect(PeerStatus{ID: peer.ID{2}, State: Kernel, Reached: true, Since: moved},
			PeerStatus{ID: peer.ID{3}, State: Userspace, Since: start.Add(3 * time.Second)})
		if a.Carries(peer.ID{9}) || a.Carries(peer.ID{7}) {
			t.Error("carries a peer that is not there")
		}
		a.dev.set(func() { a.dev.fail = nil })
		b.stop(t)
		synctest.Wait()
		if list = a.Peers(); list[0].State == Kernel || !list[0].Since.Equal(start.Add(4*time.Second)) {
			t.Errorf("after a goodbye: %+v", list[0])
		}
		a.peers()
		synctest.Wait()
		expect()
		a.stop(t)
	})
}

func TestTrafficMeter(t *testing.T) {
	var m trafficMeter
	for i, c := range []struct {
		frames, probes uint64
		want           bool
	}{
		{10, 10, false}, {12, 11, true}, {12, 12, false}, {14, 13, false}, {14, 14, false}, // a probe is counted late
		{17, 14, true}, {20, 17, false}, {120, 17, true}, {120, 100, false}, {121, 100, true}, // after the excess fell
	} {
		if got := m.moved(c.frames, c.probes); got != c.want {
			t.Errorf("%d: %d frames, %d probes: %v", i, c.frames, c.probes, got)
		}
	}
}
