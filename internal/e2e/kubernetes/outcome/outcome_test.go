package outcome_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weft/internal/e2e/kubernetes/outcome"
)

const record = `{"name":"a","state":"passed","seconds":1.5}
{"name":"b","state":"failed","seconds":60,"message":"no reply"}
{"name":"c","state":"skipped","seconds":0.1,"message":"needs a cloud"}
{"name":"b","state":"passed","seconds":20}
`

func parse(t *testing.T, text string) []outcome.Test {
	t.Helper()
	tests, err := outcome.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return tests
}

func TestParse(t *testing.T) {
	tests := parse(t, record)
	var got []string
	for _, test := range tests {
		got = append(got, test.Name+" "+string(test.First().State)+" "+string(test.Last().State))
	}
	if want := []string{"a passed passed", "b failed passed", "c skipped skipped"}; !slices.Equal(got, want) {
		t.Errorf("tests %q, want %q", got, want)
	}
	if !tests[1].Late() || tests[0].Late() || tests[2].Late() {
		t.Error("only b passed at its second try")
	}
}

func TestParseBrokenLines(t *testing.T) {
	if tests := parse(t, record+`{"name":"d","sta`); len(tests) != 3 {
		t.Errorf("with a line that is cut off: %d tests, want 3", len(tests))
	}
	for _, text := range []string{"x\n", `{"name":"a"}` + "\n", `{"state":"passed"}` + "\n", `{"name":"a","state":"green"}` + "\n"} {
		if _, err := outcome.Parse([]byte(text)); err == nil {
			t.Errorf("no error for %q", text)
		}
	}
}

// TestResume: a run breaks off in the middle of a line. The next run removes it and goes on.
func TestResume(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record")
	read := func() []outcome.Test {
		t.Helper()
		tests, err := outcome.Read(path)
		if err != nil {
			t.Fatal(err)
		}
		return tests
	}
	names := []string{"a", "b", "c", "d"}
	if err := outcome.Repair(path); err != nil || len(outcome.Waiting(names, read())) != 4 {
		t.Errorf("without a file: %v", err)
	}
	if err := os.WriteFile(path, []byte(record+`{"name":"d"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := outcome.Repair(path); err != nil {
		t.Fatal(err)
	}
	if got := outcome.Waiting(names, read()); !slices.Equal(got, []string{"d"}) {
		t.Errorf("waiting: %q", got)
	}
	if err := outcome.Append(path, outcome.Result{Name: "d", State: outcome.Failed, Seconds: 3, Message: "lost"}); err != nil {
		t.Fatal(err)
	}
	if got := outcome.Waiting(names, read()); got != nil {
		t.Errorf("waiting at the end: %q", got)
	}
	if got := outcome.FailedOnce(names, read()); !slices.Equal(got, []string{"d"}) {
		t.Errorf("failed once: %q", got)
	}
	if text, err := os.ReadFile(path); err != nil || strings.Count(string(text), "\n") != 5 {
		t.Errorf("%v: %s", err, text)
	}
}

func TestSplit(t *testing.T) {
	beside, alone := outcome.Split([]string{"b", "x [Serial]", "a", "y [Disruptive]"})
	if !slices.Equal(beside, []string{"b", "a"}) || !slices.Equal(alone, []string{"x [Serial]", "y [Disruptive]"}) {
		t.Errorf("%q, %q", beside, alone)
	}
}
