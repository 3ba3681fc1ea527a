// Package memberlog passes memberlist's log lines to a slog.Logger, at a bounded rate.
package memberlog

import (
	"context"
	"log"
	"log/slog"
	"sync"
	"time"
)

// How many warnings that others can cause are logged; the rest is counted.
const (
	Burst  = 10
	refill = 5 * time.Second // until one more line may be logged
)

// writer is an io.Writer that passes memberlist's lines ("[WARN] memberlist: …") to a slog.Logger, at a bounded
// rate.
type writer struct {
	to      *slog.Logger // constant
	limiter Limiter
}

// Limiter bounds the rate of warnings. Its methods may be called concurrently. The zero Limiter admits Burst of
// them at once.
type Limiter struct {
	mu         sync.Mutex
	used       int       // guarded by mu: of Burst
	refilled   time.Time // guarded by mu
	suppressed int       // guarded by mu: lines since the last one that was logged
}

// New returns a logger for memberlist that writes to to.
func New(to *slog.Logger) *log.Logger { return log.New(&writer{to: to}, "", 0) }

// Write implements io.Writer for one line.
func (b *writer) Write(line []byte) (int, error) {
	level, text := splitLogLine(string(line))
	ctx := context.Background()
	if !b.to.Enabled(ctx, level) {
		return len(line), nil
	}
	var suppressed int
	if level >= slog.LevelWarn {
		var ok bool
		if suppressed, ok = b.limiter.Admit(time.Now()); !ok {
			return len(line), nil
		}
	}
	attrs := []slog.Attr{slog.String("text", text)}
	if suppressed > 0 {
		attrs = append(attrs, slog.Int("suppressed", suppressed))
	}
	b.to.LogAttrs(ctx, level, "memberlist", attrs...)
	return len(line), nil
}

// Admit reports whether a warning may be logged at now, and counts it. It returns how many were suppressed before it.
func (l *Limiter) Admit(now time.Time) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := int(now.Sub(l.refilled) / refill); n > 0 {
		l.used, l.refilled = max(0, l.used-n), now
	}
	if l.used == Burst {
		l.suppressed++
		return 0, false
	}
	l.used++
	suppressed, l.suppressed = l.suppressed, 0
	return suppressed, true
}
