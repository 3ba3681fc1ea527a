package load

import (
	"errors"
	"math"
	"testing"
	"time"

	"weft/bench/probe"
)

// path simulates a path with a capacity and a sender with a maximum rate, both in datagrams per second.
type path struct {
	capacity, sender float64
	hiccups          int // the number of next tries that lose half
	tries            int
}

func (p *path) try(rate float64) (probe.Count, error) {
	p.tries++
	sent := min(rate, p.sender)
	got := min(sent, p.capacity)
	if p.hiccups > 0 {
		p.hiccups--
		got /= 2
	}
	return probe.Count{Sent: uint64(sent), Received: uint64(got), Elapsed: time.Second}, nil
}

func TestSearchFindsTheCapacity(t *testing.T) {
	for _, capacity := range []float64{700, 5_000, 31_000, 32_000, 90_000, 250_000} {
		p := &path{capacity: capacity, sender: math.Inf(1)}
		got, err := search(p.try)
		if err != nil {
			t.Fatal(err)
		}
		if got < 0.96*capacity || got > capacity {
			t.Errorf("capacity %v: found %v", capacity, got)
		}
		if p.tries > 40 {
			t.Errorf("capacity %v: %d tries", capacity, p.tries)
		}
	}
}

func TestSearchEndsAtTheSender(t *testing.T) {
	p := &path{capacity: math.Inf(1), sender: 100_000}
	if got, err := search(p.try); err != nil || got != 100_000 {
		t.Errorf("search = %v, %v", got, err)
	}
}

func TestSearchToleratesOneHiccup(t *testing.T) {
	p := &path{capacity: 90_000, sender: math.Inf(1), hiccups: 1}
	if got, err := search(p.try); err != nil || got < 0.96*90_000 {
		t.Errorf("search = %v, %v", got, err)
	}
}

func TestSearchGivesUp(t *testing.T) {
	if got, err := search((&path{sender: math.Inf(1)}).try); err != nil || got != 0 {
		t.Errorf("search where nothing passes = %v, %v", got, err)
	}
	broken := errors.New("broken")
	if _, err := search(func(float64) (probe.Count, error) { return probe.Count{}, broken }); !errors.Is(err, broken) {
		t.Errorf("search = %v", err)
	}
}
