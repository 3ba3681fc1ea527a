package mesh

import (
	"context"
	"log"
	"log/slog"
	"sync"
	"time"
)

// How many warnings that others can cause are logged; the rest is counted.
const (
	logBurst  = 10
	logRefill = 5 * time.Second // until one more line may be logged
)

// memberlistLog is an io.Writer that passes memberlist's lines ("[WARN] memberlist: …") to a slog.Logger, at a bounded
// rate.
type memberlistLog struct {
	to      *slog.Logger // constant
	limiter logLimiter
}

// logLimiter bounds the rate of warnings. Its methods may be called concurrently. The zero logLimiter admits logBurst of
// them at once.
type logLimiter struct {
	mu         sync.Mutex
	used       int       // guarded by mu: of logBurst
	refilled   time.Time // guarded by mu
	suppressed int       // guarded by mu: lines since the last one that was logged
}

// newMemberlistLog returns a logger for memberlist that writes to to.
func newMemberlistLog(to *slog.Logger) *log.Logger { return log.New(&memberlistLog{to: to}, "", 0) }

// Write implements io.Writer for one line.
func (b *memberlistLog) Write(line []byte) (int, error) {
	level, text := splitLogLine(string(line))
	ctx := context.Background()
	if !b.to.Enabled(ctx, level) {
		return len(line), nil
	}
	var suppressed int
	if level >= slog.LevelWarn {
		var ok bool
		if suppressed, ok = b.limiter.admit(time.Now()); !ok {
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

// admit reports whether a warning may be logged at now, and counts it. It returns how many were suppressed before it.
func (l *logLimiter) admit(now time.Time) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := int(now.Sub(l.refilled) / logRefill); n > 0 {
		l.used, l.refilled = max(0, l.used-n), now
	}
	if l.used == logBurst {
		l.suppressed++
		return 0, false
	}
	l.used++
	suppressed, l.suppressed = l.suppressed, 0
	return suppressed, true
}
