package filelock_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"weft/internal/filelock"
)

func TestTake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	release, err := filelock.Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := filelock.Take(ended, path); !errors.Is(err, context.Canceled) {
		t.Errorf("Take while another has its turn: %v", err)
	}
	next := make(chan error)
	go func() {
		release, err := filelock.Take(t.Context(), path)
		if err == nil {
			release()
		}
		next <- err
	}()
	release()
	if err := <-next; err != nil {
		t.Error(err)
	}
	if _, err := filelock.Take(t.Context(), filepath.Join(t.TempDir(), "no", "folder")); err == nil {
		t.Error("a file that cannot be made is held")
	}
}
