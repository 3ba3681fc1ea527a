package main

import (
	"testing"

	"weft/internal/docgen"
)

// TestCommandsDoc: docs/COMMANDS-weft-bench.md has every command and flag as "weft-bench --help" shows them.
func TestCommandsDoc(t *testing.T) {
	docgen.Check(t, "../../docs/COMMANDS-weft-bench.md", docgen.Markdown(newRootCommand(), docgen.Options{}))
}
