package node

import (
	"context"
	"os"
	"path/filepath"

	"weft/internal/filelock"
	"weft/internal/hint"
)

// takeOver returns once no other daemon with --take-over runs at the same socket; release lets the next one start.
// See docs/adr/0020-take-over.md.
func takeOver(ctx context.Context, socket string) (release func(), err error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return nil, hint.Refuse("--socket", "Name a path in a directory that can be created.", "%w", err)
	}
	release, err = filelock.Acquire(ctx, socket+".lock")
	if err != nil && ctx.Err() == nil {
		return nil, hint.Refuse("--socket", "Name a path where files can be created.", "%w", err)
	}
	return release, err
}
