package fairqueue

import (
	"math/bits"
	"testing"

	"pgregory.net/rapid"
)

// queues are queues of packets, given by their sizes.
type queues [][]int

// take takes up to n packets, as the reader of a TAP does, and returns the queue of each.
func (q queues) take(s *Scheduler, n int) (order []int) {
	for {
		i, ok := s.Next()
		if !ok {
			return order
		}
		for s.MayGive(i) {
			if len(q[i]) == 0 {
				s.Emptied(i)
				break
			}
			if len(order) == n {
				return order
			}
			s.Took(i, q[i][0])
			q[i] = q[i][1:]
			order = append(order, i)
		}
	}
}

// packets returns n packets of a size.
func packets(n, size int) (p []int) {
	for range n {
		p = append(p, size)
	}
	return p
}

// TestShares: busy queues give the same number of bytes, whatever the size of their packets.
func TestShares(t *testing.T) {
	const quantum = 10_000
	q := queues{packets(10_000, 100), packets(10_000, 1_500), packets(10_000, 64_000)}
	s := New(len(q), quantum)
	s.Filled(0b111)
	given := make([]int, len(q))
	size := []int{100, 1_500, 64_000}
	for _, i := range q.take(s, 20_000) {
		given[i] += size[i]
		for _, other := range given { // beyond the longest packet and a turn of the other
			if len(q[i]) > 0 && given[i]-other > 64_000+2*quantum {
				t.Fatalf("bytes given: %v", given)
			}
		}
		if len(q[0]) == 0 {
			return
		}
	}
	t.Errorf("the first queue still has %d packets", len(q[0]))
}

// TestFreshGoesFirst: a packet of a queue that was empty is the next one, however many the others have.
func TestFreshGoesFirst(t *testing.T) {
	q := queues{packets(1_000, 64_000), packets(1_000, 64_000), nil}
	s := New(len(q), 64_000)
	s.Filled(0b011)
	q.take(s, 10)
	for range 20 {
		q[2] = packets(1, 100)
		s.Filled(0b111)
		if order := q.take(s, 3); order[0] != 2 {
			t.Fatalf("order %v", order)
		}
	}
}

// TestFreshIsNoPrivilege: a queue that has a packet again whenever it was emptied gets a share, and no more.
func TestFreshIsNoPrivilege(t *testing.T) {
	const size = 64_000
	q := queues{packets(1_000, size), nil}
	s := New(len(q), size)
	s.Filled(0b01)
	given := [2]int{}
	for range 200 {
		q[1] = packets(1, size)
		s.Filled(0b10)
		for _, i := range q.take(s, 2) {
			given[i]++
		}
	}
	if given[1] > given[0]*11/10 {
		t.Errorf("packets given: %v", given)
	}
}

// TestEverything: every packet is taken, in the order of its queue, and no queue with packets is left out.
func TestEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, Max).Draw(t, "queues")
		q, s := make(queues, n), New(n, rapid.IntRange(1, 100_000).Draw(t, "quantum"))
		put, taken := 0, 0
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			var filled uint32
			for range rapid.IntRange(0, 5).Draw(t, "packets") {
				i := rapid.IntRange(0, n-1).Draw(t, "queue")
				q[i] = append(q[i], rapid.IntRange(1, 70_000).Draw(t, "size"))
				filled |= 1 << i
				put++
			}
			s.Filled(filled)
			taken += len(q.take(s, rapid.IntRange(1, 10).Draw(t, "batch")))
			for i := range q {
				if len(q[i]) > 0 && s.active&(1<<i) == 0 {
					t.Fatalf("queue %d has packets and is not active", i)
				}
			}
			if len(s.fresh)+len(s.old) != bits.OnesCount32(s.active) {
				t.Fatalf("fresh %v, old %v, active %b", s.fresh, s.old, s.active)
			}
		}
		taken += len(q.take(s, put+1))
		if taken != put || s.active != 0 {
			t.Fatalf("%d packets of %d taken, active %b", taken, put, s.active)
		}
	})
}

// TestNoAllocation: a turn does not allocate.
func TestNoAllocation(t *testing.T) {
	s := New(Max, 1_000)
	if n := testing.AllocsPerRun(100, func() {
		s.Filled(1<<Max - 1)
		for i, ok := s.Next(); ok; i, ok = s.Next() {
			if s.Took(i, 900); !s.MayGive(i) {
				s.Emptied(i)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
