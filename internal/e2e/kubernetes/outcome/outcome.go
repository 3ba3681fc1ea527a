// Package outcome records how the tests and the steps of a run on a cluster have ended, so that a run that broke off goes on with
// those that have no result yet.
//
// The record of a setting of the cluster is a file with a JSON object on each line. The program of the upstream tests appends a line
// for each of its tests (lab/programs/e2e), and this package appends one for each step.
package outcome

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// State is how a try of a test has ended.
type State string

// The states of a try.
const (
	Passed  State = "passed"
	Failed  State = "failed"
	Skipped State = "skipped"
)

// Result is one try of a test or a step: a line of the record.
type Result struct {
	Name    string  `json:"name"`
	State   State   `json:"state"`
	Seconds float64 `json:"seconds"`
	// Message is why a test failed or was skipped, or the outcome of a step.
	Message string `json:"message,omitempty"`
}

// valid reports whether a line of the record has all that a result needs.
func (r Result) valid() bool {
	return r.Name != "" && slices.Contains([]State{Passed, Failed, Skipped}, r.State)
}

// Test is a test or a step with its tries in order, at least one.
type Test struct {
	Name  string
	Tries []Result
}

// Last returns the last try.
func (t Test) Last() Result { return t.Tries[len(t.Tries)-1] }

// First returns the first try.
func (t Test) First() Result { return t.Tries[0] }

// Late reports whether the test failed first and passed at a later try.
func (t Test) Late() bool { return t.First().State == Failed && t.Last().State == Passed }

// Parse returns the tests of a record, in the order of their first tries. A last line that is cut off, as an interrupted run leaves it,
// is ignored; any other line that is not a result is an error.
func Parse(text []byte) (tests []Test, err error) {
	at := map[string]int{}
	lines := bytes.SplitAfter(text, []byte("\n"))
	for n, line := range lines {
		whole := bytes.HasSuffix(line, []byte("\n"))
		if !whole || len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var r Result
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("outcome: line %d: %w", n+1, err)
		}
		if !r.valid() {
			return nil, fmt.Errorf("outcome: line %d is not a result: %s", n+1, bytes.TrimSpace(line))
		}
		i, known := at[r.Name]
		if !known {
			i = len(tests)
			at[r.Name] = i
			tests = append(tests, Test{Name: r.Name})
		}
		tests[i].Tries = append(tests[i].Tries, r)
	}
	return tests, nil
}

// Read returns the tests of a record in a file, none if there is no file.
func Read(path string) ([]Test, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	tests, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return tests, nil
}

// Repair removes a last line that is cut off, so that the next one begins on a line of its own. Call it before a run appends.
func Repair(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (len(text) == 0 || text[len(text)-1] == '\n') {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Truncate(path, int64(bytes.LastIndexByte(text, '\n')+1))
}

// Append adds a result to the record in a file.
func Append(path string, r Result) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(append(line, '\n'))
	return errors.Join(err, file.Close())
}

// Waiting returns the names without a result, in their order.
func Waiting(names []string, done []Test) (waiting []string) {
	for _, name := range names {
		if !slices.ContainsFunc(done, func(t Test) bool { return t.Name == name }) {
			waiting = append(waiting, name)
		}
	}
	return waiting
}

// FailedOnce returns the names of those that failed at their only try.
func FailedOnce(names []string, done []Test) (failed []string) {
	for _, t := range done {
		if len(t.Tries) == 1 && t.First().State == Failed && slices.Contains(names, t.Name) {
			failed = append(failed, t.Name)
		}
	}
	return failed
}

// Split divides names of upstream tests into those that may run beside others, and those that must run alone.
func Split(names []string) (beside, alone []string) {
	for _, name := range names {
		if strings.Contains(name, "[Serial]") || strings.Contains(name, "[Disruptive]") {
			alone = append(alone, name)
		} else {
			beside = append(beside, name)
		}
	}
	return beside, alone
}
