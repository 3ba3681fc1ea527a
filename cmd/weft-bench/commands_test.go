package main

import (
	"testing"

	"weft/internal/docgen"
)

// TestCommandsDoc: docs/COMMANDS-weft-bench.md lists every command and flag with the texts of "weft-bench --help".
func TestCommandsDoc(t *testing.T) {
	docgen.Check(t, "../../docs/COMMANDS-weft-bench.md", docgen.Markdown(newRootCommand(), docgen.Options{}))
}
