package main

import (
	"testing"

	"weft/internal/docgen"
)

// TestCommandsDoc: docs/COMMANDS-weft-kube.md has every command and flag as "weft-kube --help" shows them.
func TestCommandsDoc(t *testing.T) {
	for _, name := range []string{"NODE_NAME", "WEFT_APISERVER", "WEFT_RANGE"} {
		t.Setenv(name, "") // else the defaults would be those of the host that runs this test
	}
	docgen.Check(t, "../../docs/COMMANDS-weft-kube.md", docgen.Markdown(newRootCommand(), docgen.Options{}))
}
