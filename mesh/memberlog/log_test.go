package memberlog

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestLogOfRestart: the line that memberlist logs at every restart of a node is no warning, and other warnings are.
func TestLogOfRestart(t *testing.T) {
	var out bytes.Buffer
	log := New(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	log.Printf("[WARN] memberlist: Refuting an alive message for 'a@192.0.2.1:6783' (192.0.2.1:6783) meta:([1] VS [2]), vsn:([1] VS [1])")
	log.Printf("[WARN] memberlist: Refuting a suspect message (from: b@192.0.2.2:6783)")
	former, suspect, _ := strings.Cut(out.String(), "\n")
	if !strings.Contains(former, "level=DEBUG") || !strings.Contains(former, "alive message") || !strings.Contains(suspect, "level=WARN") {
		t.Errorf("logged:\n%s", out.String())
	}
}
