package cni

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/types"

	"weft/internal/filelock"
)

// lockName is the name of the lock beside the daemon's socket. ADD holds it shared and GC exclusively: in the middle of ADD there
// is a lease without a link, which looks like garbage to the GC of another runtime.
const lockName = "cni.lock"

// lockMode is how a verb holds the lock.
type lockMode func(ctx context.Context, path string) (release func(), err error)

var (
	shared    lockMode = filelock.AcquireShared
	exclusive lockMode = filelock.Acquire
)

// lock waits for the lock until ctx ends. There is nothing to lock where no daemon has run.
func (c *call) lock(ctx context.Context, mode lockMode) (unlock func(), err error) {
	path := filepath.Join(filepath.Dir(c.daemon.Socket()), lockName)
	unlock, err = mode(ctx, path)
	switch {
	case err == nil:
		return unlock, nil
	case errors.Is(err, fs.ErrNotExist):
		return func() {}, nil
	case ctx.Err() != nil:
		return nil, failure(types.ErrTryAgainLater, fmt.Errorf("another ADD or GC holds %s: %w", path, err))
	}
	return nil, failure(types.ErrIOFailure, err)
}
