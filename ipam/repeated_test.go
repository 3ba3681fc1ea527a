package ipam

import (
	"math"
	"testing"
	"time"

	"weft/ipam/ring"
)

// TestRepeatedRequestsAreGrantedOnce sends a few requests of a node again and again, alternately: each is granted once. The mesh
// refuses what was recorded; this holds for what a sender repeats itself.
func TestRepeatedRequestsAreGrantedOnce(t *testing.T) {
	bubble(t, 2, func(t *testing.T, b *bus) {
		a := b.nodes[0].start(b.nodes[0].config(1, "10.32.0.0/16"))
		allocate(t, a, "x", "10.32.0.0/16")
		time.Sleep(time.Minute)
		var requests [][]byte
		other := nodeID(7)
		err := a.do(func() error {
			nothing := a.pools[0].ring.Select(func(ring.Token) bool { return false }).Append(nil)
			for id := range uint64(maxServed) {
				m := unicast{kind: kindRequest, id: 1 + id, low: 0, end: 1 << 16, count: math.MaxUint64, ring: nothing} // granted whatever it owns
				requests = append(requests, m.encode())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		owned := func() (n uint64) {
			_ = a.do(func() error {
				n = a.pools[0].owned(other)
				return nil
			})
			return n
		}
		var once uint64
		for round := range 20 {
			for _, msg := range requests[:2] {
				if err := a.Message(other, msg); err != nil {
					t.Fatal(err)
				}
			}
			if round == 0 {
				once = owned()
			}
		}
		if got := owned(); got != once || once == 0 || once > 3<<14 {
			t.Errorf("%d addresses after 20 rounds, %d after the first", got, once)
		}
		for _, msg := range requests {
			if err := a.Message(other, msg); err != nil {
				t.Fatal(err)
			}
		}
		all := owned()
		for _, msg := range requests {
			if err := a.Message(other, msg); err != nil {
				t.Fatal(err)
			}
		}
		if got := owned(); got != all {
			t.Errorf("%d addresses after %d requests were repeated, %d before", got, len(requests), all)
		}
	})
}
