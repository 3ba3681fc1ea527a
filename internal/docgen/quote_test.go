package docgen

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestUnquoted: commands, separators and comments of a golden file need no quotation, each line of output does.
func TestUnquoted(t *testing.T) {
	golden := "# comment\nmake n=1\n----\nfirst\n    abcd\n\nmake n=2\n----\nlast"
	document := "Text.\n```\nfirst\n  abcd\n```\n"
	if diff := cmp.Diff([]string{"last"}, Unquoted(golden, document)); diff != "" {
		t.Error(diff)
	}
	if missing := Unquoted(golden, "abcd first"); len(missing) != 3 {
		t.Errorf("%q; want three lines: a line counts as a whole", missing)
	}
}
