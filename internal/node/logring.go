package node

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"sync"
)

// logRingLines is how many lines of the log a report contains.
const logRingLines = 200

// logRing holds the latest lines of the log, for a report.
type logRing struct {
	mu    sync.Mutex
	lines []string // guarded by mu
}

// all returns the lines, the oldest first.
func (r *logRing) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lines)
}

// Write implements io.Writer; slog's handlers call it once a line.
func (r *logRing) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lines) == logRingLines {
		r.lines = slices.Delete(r.lines, 0, 1)
	}
	r.lines = append(r.lines, string(bytes.TrimRight(line, "\n")))
	return len(line), nil
}

// withLogRing returns a logger that logs like log and keeps the latest lines.
func withLogRing(log *slog.Logger) (*slog.Logger, *logRing) {
	r := &logRing{}
	return slog.New(teeHandler{log.Handler(), slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug})}), r
}

// teeHandler passes records to two handlers, as far as the first is enabled for them.
type teeHandler struct{ first, second slog.Handler }

// Enabled implements slog.Handler.
func (h teeHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.first.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h teeHandler) Handle(ctx context.Context, record slog.Record) error {
	_ = h.second.Handle(ctx, record) // to memory, which cannot fail
	return h.first.Handle(ctx, record)
}

// WithAttrs implements slog.Handler.
func (h teeHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return teeHandler{h.first.WithAttrs(attrs), h.second.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h teeHandler) WithGroup(name string) slog.Handler {
	return teeHandler{h.first.WithGroup(name), h.second.WithGroup(name)}
}
