package main

import (
	"testing"

	"weft/internal/docgen"
)

// TestCommandsDoc: docs/COMMANDS-weft-docker.md lists every command and flag with the texts of "weft-docker --help".
func TestCommandsDoc(t *testing.T) {
	t.Setenv("WEFT_SOCKET", "") // the defaults of flags must not depend on the environment of the test
	docgen.Check(t, "../../docs/COMMANDS-weft-docker.md", docgen.Markdown(newRootCommand(), docgen.Options{}))
}
