package daemon

import (
	"context"
	"os"
	"path/filepath"

	"weft/internal/filelock"
)

// takeTurn returns once no other daemon with --take-over runs at the same socket; release lets the next one.
func (c *Config) takeTurn(ctx context.Context) (release func(), err error) {
	if err := os.MkdirAll(filepath.Dir(c.Socket), 0o755); err != nil {
		return nil, refuse("--socket", "Name a path in a folder that can be made.", "%w", err)
	}
	release, err = filelock.Acquire(ctx, c.Socket+".lock")
	if err != nil && ctx.Err() == nil {
		return nil, refuse("--socket", "Name a path where files can be made.", "%w", err)
	}
	return release, err
}
