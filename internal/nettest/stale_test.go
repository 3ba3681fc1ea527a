package nettest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"testing/synctest"
	"time"
)

// deadPid returns the ID of a process that has ended.
func deadPid(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func TestOwnerDead(t *testing.T) {
	dead := deadPid(t)
	for name, want := range map[string]bool{
		fmt.Sprintf("wl-%d-1-a", dead):        true,
		fmt.Sprintf("wl-%d-1", dead):          true,
		fmt.Sprintf("wl-%d-1-a", os.Getpid()): false,
		fmt.Sprintf("weft-%d-1-a", dead):      false,
		fmt.Sprintf("wl-%d", dead):            false,
		"wl-t1":                               false,
		"wl-0-1-a":                            false,
		"wl--1-1-a":                           false,
		"":                                    false,
		"wl-99999999999999999999999999999999999-a-": false,
	} {
		if got := ownerDead(prefix, name); got != want {
			t.Errorf("ownerDead(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestRemoveStale(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root; labtest's tests fail where that is an error")
	}
	// A separate prefix, because other processes that create labs remove stale ones at the same time.
	const prefix = "wltest-"
	s := &Space{name: fmt.Sprintf("%s%d-1-a", prefix, deadPid(t))}
	if err := createSpace(s.name); err != nil {
		t.Fatal(err)
	}
	cmd := s.Command(context.Background(), "sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	err := Until(ctx, func() error { // wait until nsenter has entered the namespace
		id, _ := identify(s.Path())
		if len(processesIn(map[identity]bool{id: true})) == 0 {
			return errors.New("nothing runs in the namespace")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := removeStale(prefix); err != nil {
		t.Error(err)
	}
	<-ended
	if _, err := os.Stat(s.Path()); !os.IsNotExist(err) {
		t.Errorf("%s still exists", s.Path())
	}
}

func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		calls := 0
		err := Until(ctx, func() error {
			if calls++; calls < 4 {
				return errors.New("not yet")
			}
			return nil
		})
		if err != nil || calls != 4 {
			t.Errorf("Until = %v after %d calls", err, calls)
		}
		never := errors.New("never")
		err = Until(ctx, func() error { return never })
		if !errors.Is(err, never) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Until = %v, want both the deadline and the last error", err)
		}
	})
}
