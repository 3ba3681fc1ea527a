package main

import (
	"testing"

	"weft/internal/docgen"
)

// TestCommandsDoc: docs/COMMANDS-weft-kube.md lists every command and flag with the texts of "weft-kube --help".
func TestCommandsDoc(t *testing.T) {
	for _, name := range []string{
		"NODE_NAME", "POD_NAMESPACE", "WEFT_APISERVER", "WEFT_IDENTITIES", "WEFT_IMAGE", "WEFT_PLAIN", "WEFT_RANGE",
	} {
		t.Setenv(name, "") // the defaults of flags must not depend on the environment of the test
	}
	docgen.Check(t, "../../docs/COMMANDS-weft-kube.md", docgen.Markdown(newRootCommand(), docgen.Options{}))
}
