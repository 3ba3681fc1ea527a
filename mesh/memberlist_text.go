package mesh

import (
	"log/slog"
	"net/netip"
	"strings"
)

// This file is the only one that depends on the texts of memberlist, as they are in v0.7.0. memberlist wraps no error in
// another, and reports packets that it cannot decrypt in its log only, so there is nothing else to classify by. An upgrade
// of memberlist may change the texts: TestNoSecretInCommon then fails, as it runs memberlist itself, and
// docs/upstream/memberlist-typed-errors.md proposes typed errors in their place.
const (
	// Of errors, and of the log lines that quote them (net.go, security.go).
	textNoKey  = "no installed keys could decrypt the message"
	textPlain  = "encryption is configured but remote state is not encrypted"
	textSealed = "remote state is encrypted and encryption is not configured"

	// Of log lines: how they begin, and what precedes the sender's address (net.go, logging.go).
	textLog     = "memberlist: "
	textPacket  = "Decrypt packet failed: "
	textStream  = "failed to receive: "
	textAddress = " from="

	// textRestart begins the warning that other nodes still have this node's metadata from before its latest start
	// (state.go). Every restart causes one, with the whole metadata as a list of numbers.
	textRestart = "Refuting an alive message for "
)

// logTags maps the tags that begin memberlist's log lines to levels. Its errors are about other nodes and the network, so
// none is an error of this node.
var logTags = map[string]slog.Level{
	"[DEBUG]": slog.LevelDebug,
	"[INFO]":  slog.LevelDebug,
	"[WARN]":  slog.LevelWarn,
	"[ERR]":   slog.LevelWarn,
	"[ERROR]": slog.LevelWarn,
}

// splitLogLine returns the level and the text of a log line of memberlist.
func splitLogLine(line string) (slog.Level, string) {
	level, text := slog.LevelInfo, strings.TrimSpace(line)
	for tag, l := range logTags {
		if rest, ok := strings.CutPrefix(text, tag); ok {
			level, text = l, rest
			break
		}
	}
	text = strings.TrimPrefix(strings.TrimSpace(text), textLog)
	if strings.HasPrefix(text, textRestart) {
		level = slog.LevelDebug
	}
	return level, text
}

// secretError returns the *SecretError for an error of an exchange of states with addr that a key mismatch caused, and
// any other error unchanged.
func secretError(addr netip.AddrPort, err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, known := range []struct {
		text   string
		reason MismatchReason
	}{{textNoKey, MismatchOther}, {textSealed, MismatchHere}, {textPlain, MismatchThere}} {
		if strings.Contains(text, known.text) {
			return &SecretError{Addr: addr, Reason: known.reason}
		}
	}
	return err
}

// mismatchIn returns the sender and the reason from the text of a log line about gossip that was dropped because of its
// key. ok is false for every other line. The rest of a line may be chosen by the sender, so the known texts must stand at
// its beginning.
func mismatchIn(text string) (addr netip.Addr, reason MismatchReason, ok bool) {
	rest, packet := strings.CutPrefix(text, textPacket)
	if packet {
		reason = MismatchUnclear // a plain packet looks like one under another key
	} else if rest, ok = strings.CutPrefix(text, textStream); !ok {
		return netip.Addr{}, 0, false
	}
	switch {
	case packet:
	case strings.HasPrefix(rest, textNoKey):
		reason = MismatchOther
	case strings.HasPrefix(rest, textPlain):
		reason = MismatchThere
	case strings.HasPrefix(rest, textSealed):
		reason = MismatchHere
	default:
		return netip.Addr{}, 0, false
	}
	from, err := netip.ParseAddrPort(rest[strings.LastIndex(rest, textAddress)+len(textAddress):])
	return from.Addr().Unmap(), reason, err == nil
}
