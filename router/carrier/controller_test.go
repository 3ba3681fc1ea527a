package carrier_test

import (
	"context"
	"errors"
	"log/slog"
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
	"weft/router/carrier"
	"weft/router/carrier/carriertest"
)

// underlay is an underlay of stations.
type underlay struct{ *carriertest.Underlay }

// station is a Controller on a fake carrier. It is the Router of its Controller.
type station struct {
	*carrier.Controller
	underlay underlay
	dev      *carriertest.Fake
	cancel   func()

	mu    sync.Mutex
	macs  []ether.Addr // guarded by mu: the addresses that the router learned
	moved []ether.Addr // guarded by mu: those that it learned elsewhere since
	heard time.Time    // guarded by mu: when the peer was last heard in userspace
	ended chan error
}

func (u underlay) station(t *testing.T, number byte, peers ...byte) *station {
	t.Helper()
	st := &station{underlay: u, dev: u.Open(peer.ID{number}), ended: make(chan error, 1)}
	controller, err := carrier.New(carrier.ControllerConfig{
		Carrier: st.dev, Self: peer.ID{number}, Router: st, Logger: slog.New(slog.DiscardHandler),
	})
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

func (st *station) SetKernel(id peer.ID, on bool) { st.dev.Record("change %x %v", id[0], on) }

func (st *station) ReleaseMACs(peer.ID) []ether.Addr {
	st.mu.Lock()
	defer st.mu.Unlock()
	macs := st.macs
	st.macs = nil
	return macs
}

// MovedMACs implements Router.
func (st *station) MovedMACs(_ peer.ID, macs []ether.Addr) (moved []ether.Addr) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(macs), func(mac ether.Addr) bool { return !slices.Contains(st.moved, mac) })
}

// ProvePeer implements Router: daemons that run answer at once.
func (st *station) ProvePeer(id peer.ID) {
	if to := st.underlay.Carrier(id); to != nil && to.Answers() && st.dev.Answers() {
		st.mu.Lock()
		defer st.mu.Unlock()
		st.heard = time.Now()
	}
}

// LastHeard implements Router.
func (st *station) LastHeard(peer.ID) time.Time {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.heard
}

// learn sets the addresses that the router has learned.
func (st *station) learn(macs ...ether.Addr) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.macs = macs
}

// states returns the states of the peers that the carrier reaches.
func (st *station) states() map[peer.ID]carrier.State {
	states := map[peer.ID]carrier.State{}
	for _, p := range st.Peers() {
		if p.Reached {
			states[p.ID] = p.State
		}
	}
	return states
}

func (st *station) peers(numbers ...byte) {
	var peers []carrier.Peer
	for _, n := range numbers {
		peers = append(peers, carrier.Peer{ID: peer.ID{n}, Addr: netip.AddrFrom4([4]byte{192, 0, 2, n})})
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
	if diff := cmp.Diff(want, st.dev.Log()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func simulate(t *testing.T, f func(t *testing.T, u underlay)) {
	t.Helper()
	defer goleak.VerifyNone(t)
	synctest.Test(t, func(t *testing.T) { f(t, underlay{carriertest.NewUnderlay()}) })
}

// TestControllerOrder: the kernel begins before userspace ends, and ends after userspace has begun.
func TestControllerOrder(t *testing.T) {
	simulate(t, func(t *testing.T, u underlay) {
		a, b := u.station(t, 1, 2), u.station(t, 2, 1)
		a.learn(ether.Addr{2, 1})
		time.Sleep(3 * time.Second)
		a.expect(t, "peers 1", "carry 2 true [02:01:00:00:00:00]", "change 2 true")
		if got := a.states()[peer.ID{2}]; got != carrier.Carrying {
			t.Errorf("state %s", got)
		}
		if got := a.ProbeStats(); got.Sent < 6 || got.Received < 6 || got.Lost != 0 {
			t.Errorf("%+v", got)
		}
		a.learn(ether.Addr{2, 2})
		time.Sleep(2 * time.Second)
		a.expect(t, "carry 2 true [02:02:00:00:00:00]")
		a.mu.Lock()
		a.moved = []ether.Addr{{2, 3}}
		a.mu.Unlock()
		a.learn(ether.Addr{2, 2}, ether.Addr{2, 3})
		time.Sleep(2 * time.Second)
		a.expect(t, "carry 2 true [02:02:00:00:00:00 02:03:00:00:00:00]", "forget [02:03:00:00:00:00]")
		b.dev.Log()
		b.stop(t)
		synctest.Wait()
		b.expect(t, "change 1 false")
		time.Sleep(10 * time.Millisecond)
		a.expect(t, "change 2 false", "carry 2 false []")
		time.Sleep(time.Minute)
		if again := a.dev.Log(); len(again) < 2 || len(again) > 3 ||
			slices.ContainsFunc(again, func(s string) bool { return s != "carry 2 false []" }) {
			t.Errorf("within the purge time: %q", again)
		}
		a.stop(t)
		a.expect(t)
	})
}

func TestControllerLeavesBrokenPath(t *testing.T) {
	simulate(t, func(t *testing.T, u underlay) {
		a, b := u.station(t, 1, 2), u.station(t, 2, 1)
		time.Sleep(5 * time.Second)
		a.dev.Log()
		stop := make(chan struct{})
		go func() { // traffic
			for {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
					a.dev.Set(func(s *carriertest.State) { s.Frames++ })
				}
			}
		}()
		time.Sleep(time.Second)
		u.Break(true)
		time.Sleep(time.Second)
		if log := a.dev.Log(); len(log) < 2 || log[0] != "change 2 false" || log[1] != "carry 2 false []" {
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
	simulate(t, func(t *testing.T, u underlay) {
		a, b := u.station(t, 1, 2), u.station(t, 2, 1)
		time.Sleep(5 * time.Second)
		a.dev.Log()
		b.dev.Set(func(s *carriertest.State) { s.Silent = true })
		time.Sleep(time.Minute)
		a.expect(t)
		if got := a.states()[peer.ID{2}]; got != carrier.Carrying {
			t.Errorf("state %s", got)
		}
		b.dev.Set(func(s *carriertest.State) { s.Silent = false })
		time.Sleep(10 * time.Second)
		a.expect(t)
		b.dev.Set(func(s *carriertest.State) { s.Silent = true })
		time.Sleep(time.Minute)
		u.Break(true)
		b.dev.Set(func(s *carriertest.State) { s.Silent = false })
		time.Sleep(2 * time.Second)
		if log := a.dev.Log(); len(log) < 2 || log[0] != "change 2 false" {
			t.Errorf("when userspace is proven: %q", log)
		}
		a.stop(t)
		b.stop(t)
	})
}

func TestControllerCarrier(t *testing.T) {
	simulate(t, func(t *testing.T, u underlay) {
		a, b, c := u.station(t, 1, 2, 3), u.station(t, 2, 1), u.station(t, 3, 1)
		defer b.stop(t)
		defer c.stop(t)
		time.Sleep(3 * time.Second)
		// Off the bridge: all peers move back within one sample.
		a.dev.Log()
		a.dev.Set(func(s *carriertest.State) { s.Ready = false })
		time.Sleep(2 * carrier.Gap)
		synctest.Wait()
		if log := strings.Join(a.dev.Log(), " "); strings.Count(log, "change") != 2 || strings.Contains(log, "true") {
			t.Errorf("%s", log)
		}
		a.dev.Set(func(s *carriertest.State) { s.Ready = true })
		time.Sleep(5 * time.Second)
		// A removed peer gets a goodbye, another one stays.
		a.dev.Log()
		a.peers(3)
		time.Sleep(time.Second)
		a.expect(t, "change 2 false", "carry 2 false []", "peers 1")
		if diff := cmp.Diff(map[peer.ID]carrier.State{{3}: carrier.Carrying}, a.states()); diff != "" {
			t.Error(diff)
		}
		if got := b.states()[peer.ID{1}]; got == carrier.Carrying {
			t.Error("a removed peer still uses the kernel path")
		}
		// Deleted: Run returns the error.
		a.dev.Set(func(s *carriertest.State) { s.Gone = true })
		if err := <-a.ended; !errors.Is(err, carrier.ErrGone) {
			t.Errorf("Run: %v", err)
		}
		a.expect(t, "change 3 false")
		a.cancel()
	})
}

// TestControllerFails: a peer that the carrier refuses is retried, and carried in userspace until then.
func TestControllerFails(t *testing.T) {
	simulate(t, func(t *testing.T, u underlay) {
		a, b := u.station(t, 1), u.station(t, 2, 1)
		synctest.Wait()
		a.dev.Set(func(s *carriertest.State) { s.Fail = errors.New("no") })
		a.peers(2)
		time.Sleep(time.Minute)
		if len(a.states()) != 0 {
			t.Errorf("%v", a.states())
		}
		a.dev.Set(func(s *carriertest.State) { s.Fail = nil })
		time.Sleep(time.Second)
		a.dev.Log()
		time.Sleep(carrier.KeepEvery)
		a.dev.Set(func(s *carriertest.State) { s.Fail = errors.New("no") })
		time.Sleep(time.Minute)
		log := strings.Join(a.dev.Log(), " ")
		moved := strings.Contains(log, "change 2 true") && !strings.Contains(log, "change 2 false")
		if moved && a.states()[peer.ID{2}] != carrier.Carrying {
			t.Errorf("%s", log)
		}
		a.dev.Set(func(s *carriertest.State) { s.Fail = nil })
		time.Sleep(5 * time.Minute)
		if a.states()[peer.ID{2}] != carrier.Carrying {
			t.Errorf("%v", a.states())
		}
		a.stop(t)
		b.stop(t)
	})
}

func TestControllerConfig(t *testing.T) {
	good := carrier.ControllerConfig{Carrier: &carriertest.Fake{}, Self: peer.ID{1}, Router: &station{}}
	for field, change := range map[string]func(*carrier.ControllerConfig){
		"Carrier": func(c *carrier.ControllerConfig) { c.Carrier = nil }, "Self": func(c *carrier.ControllerConfig) { c.Self = peer.ID{} },
		"Router": func(c *carrier.ControllerConfig) { c.Router = nil },
	} {
		c := good
		change(&c)
		if _, err := carrier.New(c); !errors.Is(err, carrier.ErrConfig) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestPeers: Peers and Carries report each requested peer, whether it is reached or not, and since when.
func TestPeers(t *testing.T) {
	simulate(t, func(t *testing.T, u underlay) {
		start := time.Now()
		a, b := u.station(t, 1, 2, 9), u.station(t, 2, 1)
		expect := func(want ...carrier.PeerStatus) {
			t.Helper()
			synctest.Wait()
			if diff := cmp.Diff(want, a.Peers()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, p := range want {
				if a.Carries(p.ID) != (p.State == carrier.Carrying) {
					t.Errorf("carries %s: %v", p.ID, a.Carries(p.ID))
				}
			}
		}
		unreached := carrier.PeerStatus{ID: peer.ID{9}, State: carrier.Probing, Reached: true, Since: start}
		time.Sleep(3 * time.Second)
		list := a.Peers()
		if len(list) != 2 || !list[0].Since.After(start) {
			t.Fatalf("%+v", list)
		}
		moved := list[0].Since
		unreached.State = list[1].State
		expect(carrier.PeerStatus{ID: peer.ID{2}, State: carrier.Carrying, Reached: true, Since: moved}, unreached)
		a.dev.Set(func(s *carriertest.State) { s.Fail = errors.New("no") })
		a.peers(2, 3)
		time.Sleep(time.Second)
		expect(carrier.PeerStatus{ID: peer.ID{2}, State: carrier.Carrying, Reached: true, Since: moved},
			carrier.PeerStatus{ID: peer.ID{3}, State: carrier.Paused, Since: start.Add(3 * time.Second)})
		if a.Carries(peer.ID{9}) || a.Carries(peer.ID{7}) {
			t.Error("carries a peer that is not there")
		}
		a.dev.Set(func(s *carriertest.State) { s.Fail = nil })
		b.stop(t)
		synctest.Wait()
		if list = a.Peers(); list[0].State == carrier.Carrying || !list[0].Since.Equal(start.Add(4*time.Second)) {
			t.Errorf("after a goodbye: %+v", list[0])
		}
		a.peers()
		synctest.Wait()
		expect()
		a.stop(t)
	})
}
