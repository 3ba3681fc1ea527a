package docgen

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "update the generated reference in docs/")

// Marks around the generated part of a page. Text outside of them is written by people.
const (
	begins = "<!-- begin: written by go test"
	ends   = "<!-- end -->\n"
)

// Check fails the test if the file page does not contain text between its marks. With the flag -update it writes text
// between the marks instead.
func Check(tb testing.TB, page, text string) {
	tb.Helper()
	file, err := os.ReadFile(page)
	if err != nil {
		tb.Fatal(err)
	}
	before, rest, found := strings.Cut(string(file), begins)
	mark, rest, marked := strings.Cut(rest, "\n")
	have, after, ended := strings.Cut(rest, ends)
	if !found || !marked || !ended {
		tb.Fatalf("%s: the marks %q and %q are missing", page, begins, ends)
	}
	want := "\n" + text + "\n"
	if have == want {
		return
	}
	if !*update {
		tb.Fatalf("%s differs from the program: run this test with -update (-page +program):\n%s", page, cmp.Diff(have, want))
	}
	if err := os.WriteFile(page, []byte(before+begins+mark+"\n"+want+ends+after), 0o600); err != nil { // the file exists and keeps its mode
		tb.Fatal(err)
	}
}
