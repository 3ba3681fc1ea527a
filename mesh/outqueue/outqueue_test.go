package outqueue

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func texts(msgs [][]byte) (list []string) {
	for _, m := range msgs {
		list = append(list, string(m))
	}
	return list
}

// TestOrder: what was sent least often comes first, and of that the oldest, short or long; what does not fit waits.
func TestOrder(t *testing.T) {
	var q Queue
	for _, msg := range []string{"a", "bbbb", "c"} {
		q.Add([]byte(msg), start)
	}
	for i, want := range [][]string{{"a", "c"}, {"bbbb"}, {"a", "c"}} {
		if got := texts(q.Take(2, 7, 9)); !slices.Equal(got, want) {
			t.Fatalf("packet %d: %q, want %q", i, got, want)
		}
	}
	q.Add([]byte("new"), start)
	if got := texts(q.Take(2, 5, 9)); !slices.Equal(got, []string{"new"}) {
		t.Errorf("%q", got)
	}
	if got := q.Take(2, 2, 9); len(got) > 0 {
		t.Errorf("%q without any room", got)
	}
}

// TestTimes: each broadcast is sent four times the logarithm of the number of members.
func TestTimes(t *testing.T) {
	for members, want := range map[int]int{1: 4, 9: 4, 10: 8, 99: 8, 1000: 16} {
		var q Queue
		q.Add([]byte("x"), start)
		sent := 0
		for range 100 {
			sent += len(q.Take(2, 1000, members))
		}
		if sent != want || q.Len() != 0 {
			t.Errorf("%d members: sent %d times, want %d; %d wait", members, sent, want, q.Len())
		}
	}
}

// TestDropped: stale broadcasts, and those that were sent most often where there are too many, are dropped and counted.
func TestDropped(t *testing.T) {
	var q Queue
	q.Add([]byte("old"), start)
	if n := q.Add([]byte("x"), start.Add(StaleAfter)); n != 0 || q.Len() != 2 {
		t.Errorf("%d dropped, %d wait", n, q.Len())
	}
	if n := q.Add([]byte("y"), start.Add(StaleAfter+sweepPause)); n != 1 || q.Len() != 2 {
		t.Errorf("%d dropped, %d wait", n, q.Len())
	}
	now := start.Add(StaleAfter + sweepPause)
	q.Take(0, 100, 9) // x and y were sent once
	for i := range MaxQueued - 2 {
		if n := q.Add(fmt.Append(nil, i), now); n != 0 {
			t.Fatalf("%d dropped with %d in the queue", n, q.Len())
		}
	}
	if n := q.Add([]byte("last"), now); n != 1 || q.Len() != MaxQueued {
		t.Errorf("%d dropped, %d wait", n, q.Len())
	}
	if got := texts(q.Take(0, 1<<20, 9)); slices.Contains(got, "x") || !slices.Contains(got, "y") || !slices.Contains(got, "last") {
		t.Errorf("wrong ones dropped, of %d", len(got))
	}
}

// BenchmarkAdd: the time for a broadcast does not grow with the queue.
func BenchmarkAdd(b *testing.B) {
	for _, n := range []int{0, 4000} {
		b.Run(fmt.Sprintf("behind=%d", n), func(b *testing.B) {
			var q Queue
			msg := []byte(strings.Repeat("x", 100))
			for range n {
				q.Add(msg, start)
			}
			for b.Loop() {
				q.Add(msg, start)
				if q.Len() > n+10 {
					q.rounds[0], q.count = q.rounds[0][:n], n
				}
			}
		})
	}
}
