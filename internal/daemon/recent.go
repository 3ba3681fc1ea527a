package daemon

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"sync"
)

// recentLines is how many lines of the log a report has.
const recentLines = 200

// recent remembers the latest lines of the log, for a report.
type recent struct {
	mu    sync.Mutex
	lines []string // guarded by mu
}

// all returns the lines, the oldest first.
func (r *recent) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lines)
}

// Write implements io.Writer; slog's handlers call it once a line.
func (r *recent) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lines) == recentLines {
		r.lines = slices.Delete(r.lines, 0, 1)
	}
	r.lines = append(r.lines, string(bytes.TrimRight(line, "\n")))
	return len(line), nil
}

// remembering returns a logger that logs as log does, and what is remembered of it.
func remembering(log *slog.Logger) (*slog.Logger, *recent) {
	r := &recent{}
	return slog.New(both{log.Handler(), slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug})}), r
}

// both is two handlers, of which the first says what is worth a line.
type both struct{ first, second slog.Handler }

// Enabled implements slog.Handler.
func (b both) Enabled(ctx context.Context, level slog.Level) bool { return b.first.Enabled(ctx, level) }

// Handle implements slog.Handler.
func (b both) Handle(ctx context.Context, record slog.Record) error {
	_ = b.second.Handle(ctx, record) // only memory
	return b.first.Handle(ctx, record)
}

// WithAttrs implements slog.Handler.
func (b both) WithAttrs(attrs []slog.Attr) slog.Handler {
	return both{b.first.WithAttrs(attrs), b.second.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (b both) WithGroup(name string) slog.Handler {
	return both{b.first.WithGroup(name), b.second.WithGroup(name)}
}
