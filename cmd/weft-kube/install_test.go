package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/hint"
)

// TestFindPlugin: the plugin is found from any folder: as the flag says, beside the program, or in $PATH.
func TestFindPlugin(t *testing.T) {
	if got, err := findPlugin("other/weft-cni"); err != nil || got != "other/weft-cni" {
		t.Errorf("with --plugin: %q, %v", got, err)
	}
	t.Chdir(t.TempDir())
	t.Setenv("PATH", "")
	if _, err := findPlugin(""); err == nil || !strings.Contains(err.Error(), "no program weft-cni") {
		t.Errorf("without any: %v", err)
	} else if advice, code := hint.Of(err); !strings.Contains(advice, "--plugin") || code != hint.ExitFailed {
		t.Errorf("the hint is %q, the exit code %d", advice, code)
	}
	folder := t.TempDir()
	t.Setenv("PATH", folder)
	inPath := filepath.Join(folder, "weft-cni")
	if err := os.WriteFile(inPath, nil, 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	if got, err := findPlugin(""); err != nil || got != inPath {
		t.Errorf("in $PATH: %q, %v, want %q", got, err, inPath)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	beside := filepath.Join(filepath.Dir(self), "weft-cni")
	if err := os.WriteFile(beside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(beside) })
	if got, err := findPlugin(""); err != nil || got != beside {
		t.Errorf("beside the program: %q, %v, want %q", got, err, beside)
	}
}
