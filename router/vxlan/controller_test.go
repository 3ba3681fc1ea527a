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

// ocean is what lies between fake devices: it delivers at once, or loses.
type ocean struct {
	mu    sync.Mutex
	boats map[peer.ID]*fakeDevice
	storm bool
}

// fakeDevice is a Carrier in memory. It writes down what is asked of it.
type fakeDevice struct {
	ocean *ocean
	self  peer.ID
	in    chan Probe

	mu     sync.Mutex
	log    []string
	frames uint64
	fail   error // of Carry and SetPeers
	gone   bool
	off    bool
	closed bool
}

var _ Backend = (*fakeDevice)(nil)

func (o *ocean) launch(id peer.ID) *fakeDevice {
	d := &fakeDevice{ocean: o, self: id, in: make(chan Probe, 100)}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.boats[id] = d
	return d
}

func (d *fakeDevice) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, fmt.Sprintf(format, args...))
}

// notes returns what was written down since the last call.
func (d *fakeDevice) notes() (log []string) {
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
	d.note("peers %d", len(peers))
	d.mu.Lock()
	defer d.mu.Unlock()
	return peers, d.fail
}

func (d *fakeDevice) Carry(id peer.ID, on bool, macs []ether.Addr) error {
	d.note("carry %x %v %v", id[0], on, macs)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fail
}

func (d *fakeDevice) Send(p Probe) error {
	d.ocean.mu.Lock()
	defer d.ocean.mu.Unlock()
	d.set(func() { d.frames++ })
	to := d.ocean.boats[p.To]
	if to == nil || d.ocean.storm {
		return nil
	}
	to.mu.Lock()
	defer to.mu.Unlock()
	if !to.closed {
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

func (d *fakeDevice) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	close(d.in)
	return nil
}

// station is a Switch on a fake device.
type station struct {
	*Controller
	dev    *fakeDevice
	macs   []ether.Addr // what the router has learned; guarded by dev.mu
	cancel func()
	ended  chan error
}

func (o *ocean) station(t *testing.T, number byte, peers ...byte) *station {
	t.Helper()
	st := &station{dev: o.launch(peer.ID{number}), ended: make(chan error, 1)}
	sw, err := New(ControllerConfig{
		Device: st.dev, Self: peer.ID{number}, Logger: slog.New(slog.DiscardHandler),
		OnChange: func(id peer.ID, kernel bool) { st.dev.note("change %x %v", id[0], kernel) },
		Take: func(peer.ID) []ether.Addr {
			st.dev.mu.Lock()
			defer st.dev.mu.Unlock()
			macs := st.macs
			st.macs = nil
			return macs
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	st.Controller = sw
	st.peers(peers...)
	ctx, cancel := context.WithCancel(t.Context())
	st.cancel = cancel
	go func() { st.ended <- sw.Run(ctx) }()
	return st
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
	if diff := cmp.Diff(want, st.dev.notes()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func simulate(t *testing.T, f func(t *testing.T, o *ocean)) {
	t.Helper()
	defer goleak.VerifyNone(t)
	synctest.Test(t, func(t *testing.T) { f(t, &ocean{boats: map[peer.ID]*fakeDevice{}}) })
}

// TestSwitchOrder: the kernel begins before userspace ends, and ends after userspace has begun.
func TestSwitchOrder(t *testing.T) {
	simulate(t, func(t *testing.T, o *ocean) {
		a, b := o.station(t, 1, 2), o.station(t, 2, 1)
		a.dev.set(func() { a.macs = []ether.Addr{{2, 1}} })
		time.Sleep(3 * time.Second)
		a.expect(t, "peers 1", "carry 2 true [02:01:00:00:00:00]", "change 2 true")
		if got := a.States()[peer.ID{2}]; got != Kernel {
			t.Errorf("state %s", got)
		}
		if got := a.ProbeStats(); got.Sent < 6 || got.Received < 6 || got.Lost != 0 {
			t.Errorf("%+v", got)
		}
		a.dev.set(func() { a.macs = []ether.Addr{{2, 2}} })
		time.Sleep(2 * time.Second)
		a.expect(t, "carry 2 true [02:02:00:00:00:00]")
		b.dev.notes()
		b.stop(t)
		synctest.Wait()
		b.expect(t, "change 1 false", "carry 1 false []")
		time.Sleep(10 * time.Millisecond)
		a.expect(t, "change 2 false", "carry 2 false []")
		time.Sleep(time.Minute)
		if again := a.dev.notes(); len(again) < 2 || len(again) > 3 || slices.ContainsFunc(again, func(s string) bool { return s != "carry 2 false []" }) {
			t.Errorf("while it settles: %q", again)
		}
		a.stop(t)
		a.expect(t)
	})
}

func TestSwitchLeavesBrokenPath(t *testing.T) {
	simulate(t, func(t *testing.T, o *ocean) {
		a, b := o.station(t, 1, 2), o.station(t, 2, 1)
		time.Sleep(5 * time.Second)
		a.dev.notes()
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
		o.mu.Lock()
		o.storm = true
		o.mu.Unlock()
		time.Sleep(time.Second)
		if log := a.dev.notes(); len(log) < 2 || log[0] != "change 2 false" || log[1] != "carry 2 false []" {
			t.Errorf("within a second: %q", log)
		}
		close(stop)
		a.stop(t)
		b.stop(t)
	})
}

func TestSwitchDevice(t *testing.T) {
	simulate(t, func(t *testing.T, o *ocean) {
		a, b, c := o.station(t, 1, 2, 3), o.station(t, 2, 1), o.station(t, 3, 1)
		defer b.stop(t)
		defer c.stop(t)
		time.Sleep(3 * time.Second)
		// Off the bridge: all go back within a look.
		a.dev.notes()
		a.dev.set(func() { a.dev.off = true })
		time.Sleep(2 * gap)
		synctest.Wait()
		if log := strings.Join(a.dev.notes(), " "); strings.Count(log, "change") != 2 || strings.Contains(log, "true") {
			t.Errorf("%s", log)
		}
		a.dev.set(func() { a.dev.off = false })
		time.Sleep(5 * time.Second)
		// A peer that goes is told, another one stays.
		a.dev.notes()
		a.peers(3)
		time.Sleep(time.Second)
		a.expect(t, "change 2 false", "carry 2 false []", "peers 1")
		if diff := cmp.Diff(map[peer.ID]State{{3}: Kernel}, a.States()); diff != "" {
			t.Error(diff)
		}
		if got := b.States()[peer.ID{1}]; got == Kernel {
			t.Error("a peer that was left still uses the kernel path")
		}
		// Deleted: Run says so.
		a.dev.set(func() { a.dev.gone = true })
		if err := <-a.ended; !errors.Is(err, ErrGone) {
			t.Errorf("Run: %v", err)
		}
		a.expect(t, "change 3 false", "carry 3 false []")
		a.cancel()
	})
}

// TestSwitchFails: what the device refuses is tried again, and carried in userspace until then.
func TestSwitchFails(t *testing.T) {
	simulate(t, func(t *testing.T, o *ocean) {
		a, b := o.station(t, 1), o.station(t, 2, 1)
		synctest.Wait()
		a.dev.set(func() { a.dev.fail = errors.New("no") })
		a.peers(2)
		time.Sleep(time.Minute)
		if len(a.States()) != 0 {
			t.Errorf("%v", a.States())
		}
		a.dev.set(func() { a.dev.fail = nil })
		time.Sleep(time.Second)
		a.dev.notes()
		time.Sleep(keepEvery)
		a.dev.set(func() { a.dev.fail = errors.New("no") })
		time.Sleep(time.Minute)
		if log := strings.Join(a.dev.notes(), " "); strings.Contains(log, "change 2 true") && !strings.Contains(log, "change 2 false") && a.States()[peer.ID{2}] != Kernel {
			t.Errorf("%s", log)
		}
		a.dev.set(func() { a.dev.fail = nil })
		time.Sleep(5 * time.Minute)
		if a.States()[peer.ID{2}] != Kernel {
			t.Errorf("%v", a.States())
		}
		a.stop(t)
		b.stop(t)
	})
}

func TestSwitchConfig(t *testing.T) {
	good := ControllerConfig{Device: &fakeDevice{}, Self: peer.ID{1}, OnChange: func(peer.ID, bool) {}}
	for field, change := range map[string]func(*ControllerConfig){
		"Device": func(c *ControllerConfig) { c.Device = nil }, "Self": func(c *ControllerConfig) { c.Self = peer.ID{} },
		"OnChange": func(c *ControllerConfig) { c.OnChange = nil },
	} {
		c := good
		change(&c)
		if _, err := New(c); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
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
