// Package page makes docs/CONFORMANCE.md from the records of a run.
package page

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"weft/internal/e2e/kubernetes/outcome"
)

// Names of the files in the folder of a setting.
const (
	factsFile = "facts.json"
	// TestsFile is the record of the upstream tests, StepsFile that of the steps.
	TestsFile = "tests.jsonl"
	StepsFile = "steps.jsonl"
)

// Suite is a selection of the upstream tests.
type Suite struct {
	Name string `json:"name"`
	// LeftOut is which tests of the selection do not run, and why.
	LeftOut string   `json:"left_out"`
	Tests   []string `json:"tests"`
}

// Facts are what a setting's cluster is made of. They are in a file from its first start on.
type Facts struct {
	Date       string `json:"date"`
	Weft       string `json:"weft"`
	Kubernetes string `json:"kubernetes"`
	Runtime    string `json:"runtime"`
	Kernel     string `json:"kernel"`
	// Suites are those that run in this setting.
	Suites []Suite `json:"suites"`
	// Broken is why the last run of the setting ended before its end; empty if it did not.
	Broken string `json:"broken,omitempty"`
}

// Save writes the facts of a setting into its folder.
func (f Facts) Save(dir string) error {
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, factsFile), append(text, '\n'), 0o644)
}

// Setting is a kind of cluster with its results so far.
type Setting struct {
	Name        string // a column of the tables
	Description string
	Facts       *Facts // nil: it has never run
	Steps       []outcome.Test
	Tests       []outcome.Test
}

// Load reads the results of a setting from its folder. A setting without a folder has none.
func Load(dir, name, description string) (Setting, error) {
	s := Setting{Name: name, Description: description}
	text, err := os.ReadFile(filepath.Join(dir, factsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	s.Facts = &Facts{}
	if err := json.Unmarshal(text, s.Facts); err != nil {
		return s, fmt.Errorf("page: %s of %s: %w", factsFile, name, err)
	}
	s.Steps, err = outcome.Read(filepath.Join(dir, StepsFile))
	if err != nil {
		return s, err
	}
	s.Tests, err = outcome.Read(filepath.Join(dir, TestsFile))
	return s, err
}

// expected returns how many tests the setting has.
func (s Setting) expected() (n int) {
	if s.Facts == nil {
		return 0
	}
	for _, suite := range s.Facts.Suites {
		n += len(suite.Tests)
	}
	return n
}

// find returns a test by its name, or nil.
func find(tests []outcome.Test, name string) *outcome.Test {
	for i := range tests {
		if tests[i].Name == name {
			return &tests[i]
		}
	}
	return nil
}

// counts are the numbers of tests by how they ended.
type counts struct {
	passed, late, failed, skipped int
	seconds                       float64
}

func count(tests []outcome.Test) (c counts) {
	for _, t := range tests {
		switch {
		case t.Late():
			c.late++
		case t.Last().State == outcome.Passed:
			c.passed++
		case t.Last().State == outcome.Skipped:
			c.skipped++
		default:
			c.failed++
		}
		for _, try := range t.Tries {
			c.seconds += try.Seconds
		}
	}
	return c
}

// progress is how far a setting has come, in words.
func (s Setting) progress() string {
	if s.Facts == nil {
		return "**not run** yet"
	}
	text := "complete"
	if missing := s.expected() - len(s.Tests); missing > 0 {
		text = fmt.Sprintf("**%d tests not run** yet", missing)
	}
	if s.Facts.Broken != "" {
		text += "; the last run broke off: " + oneLine(s.Facts.Broken)
	}
	return text
}

// cell is a test in the column of a setting.
func (s Setting) cell(name string) string {
	t := find(s.Tests, name)
	switch {
	case t == nil && s.Facts == nil:
		return "not run"
	case t == nil:
		for _, suite := range s.Facts.Suites {
			for _, other := range suite.Tests {
				if other == name {
					return "not run"
				}
			}
		}
		return "" // not a test of this setting
	case t.Last().State == outcome.Skipped:
		return "skipped"
	case t.Late():
		return fmt.Sprintf("passed at try %d, %.0f s", len(t.Tries), t.Last().Seconds)
	case t.Last().State == outcome.Failed:
		return fmt.Sprintf("**failed**, %.0f s", t.First().Seconds)
	default:
		return fmt.Sprintf("passed, %.0f s", t.Last().Seconds)
	}
}

// maxReason bounds the text of a failure on the page, in bytes.
const maxReason = 300

// oneLine returns a text that fits into the cell of a table: its first lines up to maxReason.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + " …"
	}
	return cellText(text)
}

// cellText escapes what has a meaning in a table of Markdown.
func cellText(text string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "[", `\[`, "]", `\]`, "*", `\*`).Replace(text)
}

// short returns the name of a test without what all have in common.
func short(name string) string {
	return cellText(strings.TrimPrefix(name, "[sig-network] "))
}

// dash stands for an empty cell.
func dash(text string) string { return cmp.Or(text, "–") }
