package reach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/peer"
	"weft/mesh/topology"
)

// world is the Host and the Router of a Reach.
type world struct {
	mu      sync.Mutex
	members []Member
	answers map[peer.ID]error // of requests; nil: the dial-back comes
	asked   []peer.ID
	links   topology.Links // as they were last published
	keeps   []peer.ID
	dialOut bool // as the router has it
}

// errLost is the answer of a peer that sent a datagram that has not come.
var errLost = errors.New("sent, and lost")

func (w *world) Members() []Member {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.members)
}

func (w *world) SetLinks(l topology.Links) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.links = l
}

func (w *world) RequestDialBack(_ context.Context, id peer.ID) (came bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, id)
	err = w.answers[id]
	if errors.Is(err, errLost) {
		return false, nil
	}
	return err == nil, err
}

func (w *world) SetReachability(dialOut bool, _ netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dialOut = dialOut
}

func (w *world) KeepSessions(with []peer.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keeps = with
}

// check compares what the world has seen last.
func (w *world) check(t *testing.T, what string, dialOut bool, asked, keeps, open string) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dialOut != dialOut || w.links.DialOut != dialOut || first(w.asked) != asked || first(w.keeps) != keeps ||
		first(w.links.Open) != open {
		t.Errorf("%s: dial-out %v, published %+v, asked %s, keeps %s", what, w.dialOut, w.links, first(w.asked), first(w.keeps))
	}
	w.asked = nil
}

// first returns the first bytes of IDs.
func first(ids []peer.ID) string {
	s := ""
	for _, id := range ids {
		s += fmt.Sprint(id[0])
	}
	return s
}

// TestReach: the nearest nodes that others reach are asked; a dial-back that comes from one of them is enough, and none of several that
// were sent makes the node one that can only dial out, until one comes. Such a node keeps sessions, and publishes its open links.
func TestReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{answers: map[peer.ID]error{{1}: errors.New("no session"), {2}: errLost, {3}: nil, {4}: errLost}}
		w.members = []Member{
			{ID: peer.ID{4}, RTT: 40 * time.Millisecond}, {ID: peer.ID{3}, RTT: 30 * time.Millisecond},
			{ID: peer.ID{9}, DialOut: true}, {ID: peer.ID{1}, RTT: 10 * time.Millisecond}, {ID: peer.ID{2}, RTT: 20 * time.Millisecond},
		}
		r := New(w, slog.New(slog.DiscardHandler))
		r.LinksChanged(nil, []peer.ID{{3}})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { r.Run(ctx, w, func() netip.Addr { return netip.Addr{} }) })
		time.Sleep(reachFirst)
		w.check(t, "reached", false, "123", "", "")
		time.Sleep(reachOpen)
		w.check(t, "still", false, "123", "", "")
		w.mu.Lock()
		w.answers[peer.ID{3}] = errLost
		w.mu.Unlock()
		r.Recheck()
		time.Sleep(reachFirst)
		w.check(t, "not reached", true, "123", "123", "3")
		r.LinksChanged([]peer.ID{{2}}, []peer.ID{{4}})
		w.check(t, "another link", true, "", "123", "4")
		w.mu.Lock()
		w.answers[peer.ID{2}] = nil
		w.mu.Unlock()
		time.Sleep(reachInside)
		w.check(t, "reached again", false, "12", "", "")
		cancel()
		running.Wait()
	})
}

// TestUnknown: where no node can be asked, nothing changes, and the next attempt is soon.
func TestUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{answers: map[peer.ID]error{{1}: errors.New("no session")}, members: []Member{{ID: peer.ID{1}}}}
		r := New(w, slog.New(slog.DiscardHandler))
		r.SetDialOut(true)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { r.Run(ctx, w, func() netip.Addr { return netip.Addr{} }) })
		time.Sleep(3 * reachFirst)
		w.check(t, "not known", true, "111", "1", "")
		cancel()
		running.Wait()
	})
}
