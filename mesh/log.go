package mesh

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// How many of memberlist's warnings and errors are logged: most of them can be provoked by anybody who can send to
// the gossip port, so their rate is bounded and the rest is counted.
const (
	logBurst  = 10
	logRefill = 5 * time.Second // a line more for each
)

// logBridge is an io.Writer that hands memberlist's lines ("[WARN] memberlist: …") to a slog.Logger.
type logBridge struct {
	to      *slog.Logger // constant
	outside *strangers   // constant; nil: nobody to tell

	mu         sync.Mutex
	tokens     int       // guarded by mu: lines that may still be logged
	refilled   time.Time // guarded by mu
	suppressed int       // guarded by mu: lines since the last one logged
}

// newLogger returns the logger that memberlist wants, writing to to. What it says of nodes without a secret in common
// goes to outside, where that is not nil.
func newLogger(to *slog.Logger, outside *strangers) *log.Logger {
	return log.New(&logBridge{to: to, outside: outside, tokens: logBurst, refilled: time.Now()}, "", 0)
}

// Write implements io.Writer for one line.
func (b *logBridge) Write(line []byte) (int, error) {
	level, text := slog.LevelInfo, bytes.TrimSpace(line)
	for tag, l := range logTags {
		if rest, ok := bytes.CutPrefix(text, []byte(tag)); ok {
			level, text = l, rest
			break
		}
	}
	text = bytes.TrimPrefix(bytes.TrimSpace(text), []byte("memberlist: "))
	if bytes.HasPrefix(text, []byte(textFormer)) {
		level = slog.LevelDebug
	}
	if b.outside != nil && level == slog.LevelWarn {
		if addr, why, ok := strangerIn(string(text)); ok {
			b.stranger(addr, why)
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
	attrs := []slog.Attr{slog.String("text", string(text))}
	if suppressed > 0 {
		attrs = append(attrs, slog.Int("suppressed", suppressed))
	}
	b.to.LogAttrs(ctx, level, "memberlist", attrs...)
	return len(line), nil
}

// stranger says that a node is kept out, where that is news.
func (b *logBridge) stranger(addr netip.Addr, why MismatchReason) {
	now := time.Now()
	if !b.outside.note(addr, why, now) {
		return
	}
	if _, ok := b.admit(slog.LevelWarn, now); ok {
		b.to.Warn("a node is kept out: no secret in common", "addr", addr, "why", "it "+why.String(), "mend", why.Remedy())
	}
}

// textFormer starts memberlist's warning that others still tell of this node what it was before its latest start. Each restart has it,
// with the whole of the node's metadata as numbers.
const textFormer = "Refuting an alive message for "

// logTags maps memberlist's tags. Its errors are about other nodes and the network, so none is an error of this node.
var logTags = map[string]slog.Level{
	"[DEBUG]": slog.LevelDebug,
	"[INFO]":  slog.LevelDebug,
	"[WARN]":  slog.LevelWarn,
	"[ERR]":   slog.LevelWarn,
	"[ERROR]": slog.LevelWarn,
}

// admit takes a token for a line of level. It returns how many lines were suppressed before this one.
func (b *logBridge) admit(level slog.Level, now time.Time) (suppressed int, ok bool) {
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
