package main

import (
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// TestGateFile: the file of --gate may follow as an argument, because the flag may also stand alone.
func TestGateFile(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.json")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--gate"}, "bench/gate.json"},
		{[]string{"--gate", missing}, missing},
		{[]string{"--gate=" + missing}, missing},
		{[]string{"--gate", missing, "more"}, "more"},
		{[]string{missing}, "missing.json"},
	} {
		cmd := newRootCommand()
		cmd.SetArgs(append([]string{"run"}, c.args...))
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.args, err)
		}
	}
}
