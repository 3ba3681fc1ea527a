package mesh

import (
	"context"
	"log"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// How many of memberlist's warnings are logged. Every host that can send to the gossip port can cause most of them, so
// their rate is bounded and the rest is counted.
const (
	logBurst  = 10
	logRefill = 5 * time.Second // until one more line may be logged
)

// memberlistLog is an io.Writer that passes memberlist's lines ("[WARN] memberlist: …") to a slog.Logger, at a bounded
// rate.
type memberlistLog struct {
	// constant
	to            *slog.Logger
	keyMismatches *keyMismatches // nil: lines about key mismatches are logged like all others

	mu         sync.Mutex
	tokens     int       // guarded by mu: lines that may still be logged
	refilled   time.Time // guarded by mu
	suppressed int       // guarded by mu: lines since the last one that was logged
}

// newMemberlistLog returns a logger for memberlist that writes to to. Lines about key mismatches are recorded in
// mismatches, unless that is nil.
func newMemberlistLog(to *slog.Logger, mismatches *keyMismatches) *log.Logger {
	return log.New(&memberlistLog{to: to, keyMismatches: mismatches, tokens: logBurst, refilled: time.Now()}, "", 0)
}

// Write implements io.Writer for one line.
func (b *memberlistLog) Write(line []byte) (int, error) {
	level, text := splitLogLine(string(line))
	if b.keyMismatches != nil && level == slog.LevelWarn {
		if addr, reason, ok := mismatchIn(text); ok {
			b.reportMismatch(addr, reason)
			return len(line), nil
		}
	}
	ctx := context.Background()
	if !b.to.Enabled(ctx, level) {
		return len(line), nil
	}
	suppressed, ok := b.admit(level, time.Now())
	if !ok {
		return len(line), nil
	}
	attrs := []slog.Attr{slog.String("text", text)}
	if suppressed > 0 {
		attrs = append(attrs, slog.Int("suppressed", suppressed))
	}
	b.to.LogAttrs(ctx, level, "memberlist", attrs...)
	return len(line), nil
}

// reportMismatch records a key mismatch, and logs it unless it was logged lately.
func (b *memberlistLog) reportMismatch(addr netip.Addr, reason MismatchReason) {
	now := time.Now()
	if !b.keyMismatches.record(addr, reason, now) {
		return
	}
	if _, ok := b.admit(slog.LevelWarn, now); ok {
		b.to.Warn("gossip of a node refused: no secret in common", "addr", addr, "reason", "it "+reason.String(),
			"remedy", reason.Remedy())
	}
}

// admit reports whether a line of the given level may be logged, and takes a token for it. It returns how many lines were
// suppressed before this one.
func (b *memberlistLog) admit(level slog.Level, now time.Time) (suppressed int, ok bool) {
	if level < slog.LevelWarn {
		return 0, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := int(now.Sub(b.refilled) / logRefill); n > 0 {
		b.tokens = min(logBurst, b.tokens+n)
		b.refilled = b.refilled.Add(time.Duration(n) * logRefill)
	}
	if b.tokens == 0 {
		b.suppressed++
		return 0, false
	}
	b.tokens--
	suppressed, b.suppressed = b.suppressed, 0
	return suppressed, true
}
