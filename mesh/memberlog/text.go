package memberlog

import (
	"log/slog"
	"strings"
)

// This file is the only one that depends on the texts of memberlist's log lines, as they are in v0.7.0: to what level each
// belongs.
const (
	textLog = "memberlist: "

	// textRestart begins the warning that other nodes still have this node's metadata from before its latest start
	// (state.go). Every restart causes one, with the whole metadata as a list of numbers.
	textRestart = "Refuting an alive message for "

	// textPublic begins the warning about an address outside of private networks (memberlist.go). memberlist does not know that
	// gossip is sealed; a node without a secret has a condition.
	textPublic = "Binding to public address without encryption"
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
	if strings.HasPrefix(text, textRestart) || strings.HasPrefix(text, textPublic) {
		level = slog.LevelDebug
	}
	return level, text
}
