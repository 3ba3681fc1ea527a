package filelock_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"weft/internal/filelock"
)

func TestAcquire(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	release, err := filelock.Acquire(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := filelock.Acquire(ended, path); !errors.Is(err, context.Canceled) {
		t.Errorf("Acquire while another holds the lock: %v", err)
	}
	next := make(chan error)
	go func() {
		release, err := filelock.Acquire(t.Context(), path)
		if err == nil {
			release()
		}
		next <- err
	}()
	release()
	if err := <-next; err != nil {
		t.Error(err)
	}
	if _, err := filelock.Acquire(t.Context(), filepath.Join(t.TempDir(), "no", "folder")); err == nil {
		t.Error("acquired a file that cannot be created")
	}
}
