package signal

import (
	"sync"
	"testing"
)

// pending reports whether c is set, and consumes the wake-up.
func pending(c Chan) bool {
	select {
	case <-c.C():
		return true
	default:
		return false
	}
}

func TestSetsAreMerged(t *testing.T) {
	c := New()
	if pending(c) {
		t.Error("a new Chan is set")
	}
	c.Set()
	c.Set()
	if !pending(c) {
		t.Error("Set did not set it")
	}
	if pending(c) {
		t.Error("two calls of Set made two wake-ups")
	}
}

func TestCopiesShareState(t *testing.T) {
	c := New()
	other := c
	other.Set()
	if !pending(c) {
		t.Error("Set on a copy did not wake the receiver of the original")
	}
}

// TestNoWakeUpIsLost: a receiver that reads the state after each wake-up sees the last write.
func TestNoWakeUpIsLost(t *testing.T) {
	const writes = 1000
	c := New()
	var mu sync.Mutex
	state := 0
	go func() {
		for range writes {
			mu.Lock()
			state++
			mu.Unlock()
			c.Set()
		}
	}()
	for {
		<-c.C()
		mu.Lock()
		seen := state
		mu.Unlock()
		if seen == writes {
			return
		}
	}
}
