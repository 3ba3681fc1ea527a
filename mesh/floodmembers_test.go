package mesh

import (
	"bytes"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/memberlist"

	"weft/mesh/sieve"
)

// states returns memberlist's message of an exchange of states with nodes that are alive.
func states(t *testing.T, nodes []*memberlist.Node) []byte {
	t.Helper()
	buf := bytes.NewBuffer([]byte{6})
	enc := codec.NewEncoder(buf, &codec.MsgpackHandle{})
	err := enc.Encode(struct {
		Nodes, UserStateLen int
		Join                bool
	}{Nodes: len(nodes)})
	for _, n := range nodes {
		err = enc.Encode(struct {
			Name        string
			Addr        []byte
			Port        uint16
			Meta        []byte
			Incarnation uint32
			State       int
			Vsn         []uint8
		}{n.Name, n.Addr, n.Port, n.Meta, 1, 0, []uint8{1, 5, 2, 0, 0, 0}})
		if err != nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestFloodOfMembers: exchanges of state with made-up members, at one address each and all at many, cost memory within a bound, in
// memberlist too. A member that was there before stays, and one that this node knows finds room.
func TestFloodOfMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var nw network
		victim := start(t, &nw, "victim", nodeIdentity(t))
		old := start(t, &nw, "old", nodeIdentity(t), victim)
		eventually(t, "they met", func() bool { return victim.sees(old, StateAlive) })
		before := heap()
		var flood []*memberlist.Node
		for i := range 12000 {
			flood = append(flood, madeUp(i, 0))
		}
		for j := range 3000 {
			flood = append(flood, madeUp(0, j))
		}
		message := states(t, flood)
		if err := sieve.Stream(message, sieve.MaxIncarnation(time.Now())); err != nil {
			t.Fatal(err)
		}
		near, far := net.Pipe()
		victim.Mesh.transport.streams <- far // as from a member: opened and checked
		go func() { _, _ = near.Write(message) }()
		_, _ = io.Copy(io.Discard, near) // memberlist answers, and closes the stream when it has merged the states
		synctest.Wait()
		members := victim.list.Load().NumMembers()
		grown := heap() - before
		if members != maxMembers-reservedPlaces {
			t.Errorf("memberlist has %d members, want %d", members, maxMembers-reservedPlaces)
		}
		if grown > 64<<20 {
			t.Errorf("%d MiB for a flood of members, want at most 64", grown>>20)
		}
		t.Logf("%d MiB for %d members", grown>>20, members)
		known := madeUp(1<<20, 1)
		victim.roster.expect(gossipAddr(known))
		if err := victim.roster.NotifyAlive(known); err != nil {
			t.Errorf("a target: %v", err)
		}
		if !victim.sees(old, StateAlive) {
			t.Error("the member that was there before is lost")
		}
		stopAll(old, victim)
	})
}
