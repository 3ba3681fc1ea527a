package main

import (
	"testing"

	"weft/internal/manual"
)

// TestCommandsDoc: docs/COMMANDS-weft-bench.md has every command and flag as "weft-bench --help" shows them.
func TestCommandsDoc(t *testing.T) {
	manual.Check(t, "../../docs/COMMANDS-weft-bench.md", manual.Markdown(newRootCommand(), manual.Options{}))
}
