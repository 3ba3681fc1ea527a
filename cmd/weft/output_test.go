package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/peer"
	"weft/internal/printable"
)

// TestOutputIsPrintable: text of other nodes in the output acts on no terminal, adds no rows, and does not hide itself.
func TestOutputIsPrintable(t *testing.T) {
	const evil = "x\x1b]0;owned\a\x1b[2J\nroot\u202e\u200b\u009b"
	peers := []api.Peer{{Name: evil}}
	status := api.Status{Name: evil, Warnings: []string{evil}, Targets: []api.Target{{Addr: "a:1", Error: evil}},
		Conditions: []api.Condition{{Severity: evil, Text: evil, Remedy: evil + "\"weft a" + evil + "\""}}}
	checks := []api.Check{{Name: evil, Detail: evil, Remedy: evil}}
	reclaimed := []api.Reclaimed{{Peer: peer.ID{1}, Name: evil, GivenToName: evil, Addresses: 1}, {Peer: peer.ID{1}, Name: evil}}
	for name, c := range map[string]struct {
		doc   any
		write func(io.Writer)
		lines int // 0: any number
	}{
		"peers":   {peers, func(w io.Writer) { writePeers(w, peers) }, 2},
		"status":  {status, func(w io.Writer) { writeStatus(w, status, display{width: 80}) }, 0},
		"doctor":  {checks, func(w io.Writer) { writeChecks(w, checks, display{}) }, 1},
		"reclaim": {reclaimed, func(w io.Writer) { writeReclaimed(w, reclaimed) }, 2},
		"table":   {evil, func(w io.Writer) { table(w, []string{"A", "B"}, [][]string{{evil, evil}}) }, 2},
		"plain":   {evil, func(w io.Writer) { _, _ = io.WriteString(w, evil) }, 0},
	} {
		var text, document bytes.Buffer
		if err := (&env{stdout: &text}).show(c.doc, c.write); err != nil {
			t.Fatal(err)
		}
		if err := (&env{stdout: &document, json: true}).show(c.doc, nil); err != nil {
			t.Fatal(err)
		}
		for _, out := range []string{text.String(), document.String()} {
			if printable.Lines(out) != out {
				t.Errorf("%s: %q", name, out)
			}
		}
		if n := strings.Count(text.String(), "\n"); c.lines > 0 && n != c.lines || strings.Contains(text.String(), "\nroot") && name != "plain" {
			t.Errorf("%s: %d lines in %q", name, n, text.String())
		}
		if !strings.Contains(document.String(), `\u001b`) || !json.Valid(document.Bytes()) {
			t.Errorf("%s: the JSON does not have the text: %s", name, document.String())
		}
	}
}

// TestErrorsArePrintable: an error with bytes from elsewhere in it is shown without them.
func TestErrorsArePrintable(t *testing.T) {
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"status", "--socket", "/nowhere/\x1b[2J\u202e"}, &out, &errs)
	if code == 0 || !strings.Contains(errs.String(), "/nowhere/") || printable.Lines(errs.String()) != errs.String() {
		t.Errorf("code %d, %q", code, errs.String())
	}
}
