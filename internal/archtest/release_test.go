package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// endToEnd is the folder of the tests that the table of releases names without a package.
const endToEnd = "internal/e2e"

// TestReleaseTable checks that the tests in the table "What we try on every release" of docs/OPERATIONS.md exist, each in the package
// that the table gives.
func TestReleaseTable(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "OPERATIONS.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := tableAfter(string(page), "## What we try on every release")
	if len(rows) < 20 {
		t.Fatalf("the table has %d rows: is it still there?", len(rows))
	}
	named := regexp.MustCompile("(?:`(internal/[^`]+|cni|mesh|router[^`]*)`: )?`(Test[A-Za-z0-9]+)`")
	for _, cells := range rows {
		tests := named.FindAllStringSubmatch(cells[len(cells)-1], -1)
		if len(tests) == 0 && !strings.Contains(cells[len(cells)-1], "`make ") {
			t.Errorf("%s: no test", cells[0])
		}
		for _, m := range tests {
			folder := m[1]
			if folder == "" {
				folder = endToEnd
			}
			if !hasTest(t, folder, m[2]) {
				t.Errorf("%s: there is no %s in %s", cells[0], m[2], folder)
			}
		}
	}
}

// hasTest reports whether a folder has a test function of that name.
func hasTest(t *testing.T, folder, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(t *testing.T)") {
			return true
		}
	}
	return false
}

// TestVersions checks that "make build" and "make release" derive the version from a commit by the same command.
func TestVersions(t *testing.T) {
	describe := regexp.MustCompile(`git describe( --[a-z=0-9]+)+`)
	var found []string
	for _, file := range []string{"Makefile", "deploy/release.sh"} {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, strings.TrimSpace(describe.FindString(string(text))))
	}
	if found[0] != found[1] || !strings.Contains(found[0], "--abbrev=") {
		t.Errorf("the Makefile runs %q, deploy/release.sh %q", found[0], found[1])
	}
}
