package main

import (
	"io"
	"testing"

	"weft/internal/docgen"
)

// TestCommandsDoc: docs/COMMANDS.md lists every command and flag with the texts of "weft --help".
func TestCommandsDoc(t *testing.T) {
	root := newRootCommand(&env{stdout: io.Discard, stderr: io.Discard})
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if f := c.Flags().Lookup("name"); f != nil {
			f.DefValue = "the host's name" // the page must not depend on the host of the test
		}
	}
	docgen.Check(t, "../../docs/COMMANDS.md", docgen.Markdown(root, docgen.Options{
		Environment: map[string]string{"weft up": envPrefix},
		SameAs:      map[string]string{"weft doctor": "weft up"},
	}))
}
