package kube

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeVisibility is a Visibility in memory.
type fakeVisibility struct {
	mu     sync.Mutex
	hidden bool
	fail   error
}

func (v *fakeVisibility) Restore() (restored []string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fail == nil && v.hidden {
		v.hidden, restored = false, []string{"a setting"}
	}
	return restored, v.fail
}

func (v *fakeVisibility) set(hidden bool, fail error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.hidden, v.fail = hidden, fail
}

// TestBridged: settings are restored within a second and counted, and the node is not ready while they cannot be.
func TestBridged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &fakeVisibility{}
		b := &bridged{settings: v, health: &health{}, log: slog.New(slog.NewTextHandler(io.Discard, nil))}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.run(ctx) }()
		synctest.Wait()
		for _, step := range []struct {
			hidden   bool
			fail     error
			restored uint64
		}{{false, nil, 0}, {true, nil, 1}, {true, errors.New("read-only"), 1}, {true, nil, 2}} {
			v.set(step.hidden, step.fail)
			time.Sleep(time.Second)
			if got := b.restored.Load(); got != step.restored {
				t.Errorf("%+v: restored %d times", step, got)
			}
			if err := b.health.get(checkBridged); (err != nil) != (step.fail != nil) {
				t.Errorf("%+v: health %v", step, err)
			}
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
