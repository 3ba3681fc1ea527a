package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSecurityTables checks that the tests in the tables of docs/SECURITY.md exist: each in the package that stands before it, or in
// that of the test before it in the cell, and at the beginning of a cell in the end-to-end tests.
func TestSecurityTables(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("(?:`([a-z/]+)`: )?`(Test[A-Za-z0-9]+)`")
	tests := 0
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		folder := endToEnd
		for _, m := range named.FindAllStringSubmatch(cells[len(cells)-1], -1) {
			if m[1] != "" {
				folder = m[1]
			}
			tests++
			if !hasTest(t, folder, m[2]) && !hasTest(t, endToEnd, m[2]) {
				t.Errorf("%s: there is no %s in %s", cells[0], m[2], folder)
			}
		}
	}
	if tests < 40 {
		t.Errorf("the tables name %d tests: are they still there?", tests)
	}
}
