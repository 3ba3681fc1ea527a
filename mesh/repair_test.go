package mesh

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weft/mesh/outqueue"
)

// TestRepair: a node that dropped a broadcast exchanges states soon after, long before the next push/pull.
func TestRepair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := start(t, &net, "a", nodeIdentity(t))
		b := start(t, &net, "b", nodeIdentity(t), a)
		eventually(t, "the nodes meet", func() bool { return a.sees(b, StateAlive) && b.sees(a, StateAlive) })
		time.Sleep(time.Minute)    // the exchanges after the start are over
		for i := range uint8(10) { // a push/pull may come at the same time as one of them, not as all
			a.queue.Add([]byte{byte(kindBroadcast), byte(ChannelIPAM)}, time.Now().Add(-2*outqueue.StaleAfter))
			if err := a.Sender(ChannelIPAM).Broadcast([]byte("new")); err != nil {
				t.Fatal(err)
			}
			what := strings.Repeat("x", int(i)+1)
			a.mu.Lock()
			a.heard[what] = true // it is part of the state, and no broadcast has it
			a.mu.Unlock()
			began := time.Now()
			eventually(t, "the state arrives", func() bool { return b.knows(what) })
			if took := time.Since(began); took > 11*time.Second {
				t.Fatalf("b has the state after %s", took)
			}
		}
	})
}

// TestRepairInABurst: states are exchanged also while broadcasts are dropped all the time.
func TestRepairInABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := start(t, &net, "a", nodeIdentity(t))
		b := start(t, &net, "b", nodeIdentity(t), a)
		eventually(t, "the nodes meet", func() bool { return a.sees(b, StateAlive) && b.sees(a, StateAlive) })
		time.Sleep(time.Minute)
		for i := range 5 { // a push/pull may come in time for one of them
			what := strings.Repeat("x", i+1)
			a.mu.Lock()
			a.heard[what] = true
			a.mu.Unlock()
			began := time.Now()
			eventually(t, "the state arrives", func() bool { a.dropped.Set(); return b.knows(what) })
			if took := time.Since(began); took > 2*repairWait {
				t.Fatalf("b has the state after %s", took)
			}
		}
	})
}
