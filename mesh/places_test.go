package mesh

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"weft/internal/identity"
	"weft/internal/peer"
	"weft/mesh/metadata"
)

// openDoor is an admission that refuses no node.
type openDoor struct{ trusted map[peer.ID]bool }

func (openDoor) admit(*memberlist.Node) error { return nil }
func (d openDoor) known(id peer.ID) bool      { return d.trusted[id] }
func (openDoor) reportInvalid(error)          {}
func (openDoor) revoked(peer.ID) bool         { return false }

func (openDoor) identify(metadata.Node, netip.Addr, time.Time) (identity.Certificate, *identity.Error) {
	return identity.Certificate{}, nil
}
func (openDoor) reportOwnKey(netip.AddrPort) {}

func (openDoor) inClusters() []metadata.ClusterID                    { return nil }
func (openDoor) checkClusters(Member, []metadata.ClusterID) (_ bool) { return false }

func testRoster(trusted map[peer.ID]bool) *roster {
	return newRoster(peer.ID{0xff}, netip.MustParseAddrPort("192.0.2.254:6783"), 1, openDoor{trusted})
}

// madeUp returns the i-th made-up member at the j-th address.
func madeUp(i, j int) *memberlist.Node {
	public := [peer.KeySize]byte{byte(i), byte(i >> 8), byte(i >> 16)}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(j >> 16), byte(j >> 8), byte(j)}), 6783)
	return &memberlist.Node{
		Name: nodeName(peer.FromPublicKey(public), at), Addr: at.Addr().AsSlice(), Port: at.Port(),
		Meta: metadata.Node{ProtoMin: 1, ProtoMax: 1, Public: public, Started: time.Now(), Name: fmt.Sprint("made up ", i)}.Encode(),
	}
}

// joins announces a node to the roster as memberlist does.
func (r *roster) joins(n *memberlist.Node) error {
	if err := r.NotifyAlive(n); err != nil {
		return err
	}
	r.NotifyJoin(n)
	return nil
}

// TestPlacesOfOneNode: a node that is announced at many addresses gets maxPlaces of them. A place that is alive stays, and one
// that is dead gives way after placePause.
func TestPlacesOfOneNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRoster(nil)
		real := madeUp(1, 0)
		id, _ := idOf(real.Name)
		if err := r.joins(real); err != nil {
			t.Fatal(err)
		}
		r.NotifyPingComplete(real, time.Millisecond, nil)
		refused := 0
		for j := range 30000 {
			n := madeUp(1, j+1)
			if err := r.joins(n); errors.Is(err, errMember) {
				refused++
			} else if err != nil {
				t.Fatal(err)
			}
			r.NotifyLeave(n)
			if j%1000 == 0 {
				time.Sleep(2 * placePause / 3)
			}
		}
		if len(r.records[id]) != maxPlaces || r.count != maxPlaces || refused < 29000 {
			t.Errorf("%d places, %d in all, %d refused, want at most %d places", len(r.records[id]), r.count, refused, maxPlaces)
		}
		if m, _ := r.lookup(id); m.GossipAddr() != gossipAddr(real) || m.State != StateAlive {
			t.Errorf("the node is %v at %v, want it at its true address", m.State, m.GossipAddr())
		}
	})
}

// TestMadeUpMembers: a flood of made-up members leaves room for nodes that this one knows, and for its own. When they are dead
// and have not answered, others get their places. Dead members that have answered stay.
func TestMadeUpMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trusted, expected := madeUp(1<<20, 1), madeUp(1<<20+1, 2)
		trustedID, _ := idOf(trusted.Name)
		r := testRoster(map[peer.ID]bool{trustedID: true})
		r.expect(gossipAddr(expected))
		before := heap()
		for i := range 2 * maxMembers {
			if err := r.joins(madeUp(i, 0)); (err != nil) != (i >= maxMembers-reservedPlaces) {
				t.Fatalf("made-up member %d: %v", i, err)
			}
		}
		if grown := heap() - before; grown > 32<<20 {
			t.Errorf("%d MiB for a flood of members, want at most 32", grown>>20)
		}
		for what, n := range map[string]*memberlist.Node{"known node": trusted, "target": expected} {
			if err := r.joins(n); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		r.NotifyPingComplete(madeUp(0, 0), time.Millisecond, nil)
		for i := range maxMembers {
			r.NotifyLeave(madeUp(i, 0)) // memberlist may keep a place for longer than the roster
		}
		if err := r.joins(madeUp(1<<21, 0)); err == nil {
			t.Error("a dead member lost its place at once")
		}
		time.Sleep(leftTTL)
		if err := r.joins(madeUp(1<<21, 0)); err != nil {
			t.Errorf("after the death of the flood: %v", err)
		}
		answered, _ := idOf(madeUp(0, 0).Name)
		if _, there := r.lookup(answered); !there || r.count != 1+3 {
			t.Errorf("%d places after the flood, that of the member that has answered: %v, want 4 with it", r.count, there)
		}
	})
}

// TestOwnNodeAlwaysHasRoom: memberlist panics when its own node is refused, for example after a move.
func TestOwnNodeAlwaysHasRoom(t *testing.T) {
	own := madeUp(1<<20, 7)
	id, _ := idOf(own.Name)
	r := newRoster(id, gossipAddr(own), 1, openDoor{})
	for i := range maxMembers {
		_ = r.joins(madeUp(i, 0))
	}
	if err := r.joins(own); err != nil {
		t.Errorf("this node itself: %v", err)
	}
}

// heap returns the bytes that are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
