package docgen

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the reference in docs/ anew")

// Marks of what is written by a test within a page; what is around it is written by people.
const (
	begins = "<!-- begin: written by go test"
	ends   = "<!-- end -->\n"
)

// Check fails a test where a page does not have text between its marks. With -update it is written there.
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
		tb.Fatalf("%s: no %q and %q", page, begins, ends)
	}
	want := "\n" + text + "\n"
	if have == want {
		return
	}
	if !*update {
		tb.Fatalf("%s is not what the program says: run this test with -update (-page +program):\n%s", page, cmp.Diff(have, want))
	}
	if err := os.WriteFile(page, []byte(before+begins+mark+"\n"+want+ends+after), 0o600); err != nil { // it is there: its mode stays
		tb.Fatal(err)
	}
}
