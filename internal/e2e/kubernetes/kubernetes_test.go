package kubernetes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/e2e/kubernetes/outcome"
	"weft/internal/e2e/kubernetes/page"
)

// TestKubernetes runs all settings of which a part has no result yet, and writes docs/CONFORMANCE.md.
//
//	WEFT_E2E=all            all settings; "smoke": the short one; names of settings, separated by commas; unset: the test is skipped
//	WEFT_E2E_PREVIOUS=REV   the release to upgrade from, if there is no tag before this commit
//	WEFT_E2E_PARALLEL=N     number of upstream tests that run at the same time
func TestKubernetes(t *testing.T) {
	what := os.Getenv("WEFT_E2E")
	if what == "" {
		t.Skip("WEFT_E2E is not set: run \"make e2e\" or \"make e2e-smoke\"")
	}
	wanted := settings
	if what == "smoke" {
		wanted = []setting{smoke}
	} else if what != "all" {
		names := strings.Split(what, ",")
		wanted = slices.DeleteFunc(slices.Clone(settings), func(s setting) bool { return !slices.Contains(names, s.name) })
		if len(wanted) != len(names) {
			t.Fatalf("WEFT_E2E is %q: not all are settings", what)
		}
	}
	prepare := newLab(t, smoke)
	for _, verb := range []string{"deps", "build"} {
		t.Logf("lab %s: %s", verb, prepare.must(t, verb))
	}
	run := filepath.Join(prepare.root, "bin", "e2e", version(t, prepare))
	t.Logf("results are in %s", run)
	for _, s := range wanted {
		t.Run(s.name, func(t *testing.T) { runSetting(t, s, filepath.Join(run, s.name)) })
		if what != "smoke" {
			writePage(t, prepare, run)
		}
	}
	if what == "smoke" {
		fmt.Println(page.Render([]page.Setting{loadSetting(t, run, smoke)}))
	}
}

// version returns the version of the programs under test. Another version has results of its own.
func version(t *testing.T, l *lab) string {
	t.Helper()
	return strings.Fields(l.local(t, "version"))[1]
}

// runSetting runs what has no result yet in the folder of a setting.
func runSetting(t *testing.T, s setting, folder string) {
	l := newLab(t, s)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{page.StepsFile, page.TestsFile} {
		if err := outcome.Repair(filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	facts := page.Facts{Date: time.Now().UTC().Format(time.DateOnly), Weft: version(t, l), Broken: "its process ended"}
	for _, suite := range s.suites {
		facts.Suites = append(facts.Suites, page.Suite{Name: suite.name, LeftOut: suite.leftOut, Tests: suite.names(t, l)})
	}
	if l.complete(t, folder, facts.Suites) {
		t.Log("all steps and tests have results of an earlier run")
		loaded, err := page.Load(folder, s.name, s.description)
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range slices.Concat(loaded.Steps, loaded.Tests) {
			if test.Last().State == outcome.Failed {
				t.Errorf("failed in an earlier run: %s: %s", test.Name, test.Last().Message)
			}
		}
		return
	}
	save := func() {
		t.Helper()
		if err := facts.Save(folder); err != nil {
			t.Fatal(err)
		}
	}
	save()
	l.start(t)
	info := func(field string) string {
		return l.kubectl(t, "get", "node", "node1", "-o", "jsonpath={.status.nodeInfo."+field+"}")
	}
	facts.Kubernetes, facts.Runtime = info("kubeletVersion"), info("containerRuntimeVersion")
	facts.Kernel = info("kernelVersion") + ", " + runtime.GOARCH
	save()
	if !l.steps(t, folder, s.before) {
		facts.Broken = "a step failed that all later ones need"
		save()
		return
	}
	for i, suite := range s.suites {
		t.Run(suite.name, func(t *testing.T) { l.upstream(t, folder, facts.Suites[i].Tests) })
	}
	l.steps(t, folder, s.after)
	facts.Broken = ""
	save()
}

// complete reports whether all steps and tests of the setting have results.
func (l *lab) complete(t *testing.T, folder string, suites []page.Suite) bool {
	t.Helper()
	read := func(name string) []outcome.Test {
		tests, err := outcome.Read(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		return tests
	}
	var steps, tests []string
	for _, s := range slices.Concat(l.setting.before, l.setting.after) {
		steps = append(steps, s.name)
	}
	for _, s := range suites {
		tests = append(tests, s.Tests...)
	}
	return len(outcome.Waiting(steps, read(page.StepsFile))) == 0 && len(outcome.Waiting(tests, read(page.TestsFile))) == 0
}

// loadSetting reads the results of a setting.
func loadSetting(t *testing.T, run string, s setting) page.Setting {
	t.Helper()
	loaded, err := page.Load(filepath.Join(run, s.name), s.name, s.description)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// writePage writes docs/CONFORMANCE.md from the results of all settings so far.
func writePage(t *testing.T, l *lab, run string) {
	t.Helper()
	var all []page.Setting
	for _, s := range settings {
		all = append(all, loadSetting(t, run, s))
	}
	path := filepath.Join(l.root, "docs", "CONFORMANCE.md")
	if err := os.WriteFile(path, []byte(page.Render(all)), 0o644); err != nil { //nolint:gosec // documentation
		t.Fatal(err)
	}
}

// git runs git in the repository, and returns its output without the line end.
func (l *lab) git(args ...string) (string, error) {
	out, err := exec.Command("git", append([]string{"-C", l.root}, args...)...).Output()
	return strings.TrimSpace(string(out)), err
}
