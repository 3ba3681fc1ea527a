package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"weft/internal/api"
)

// TestOutput runs the commands and flags that only print something.
func TestOutput(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	a := nodes[0]
	for _, shell := range []string{"bash", "fish", "powershell", "zsh"} {
		for _, args := range [][]string{nil, {"--no-descriptions"}} {
			if out := do(t, a, append([]string{"completion", shell}, args...)...); !strings.Contains(out, "weft") {
				t.Errorf("weft completion %s %v: %s", shell, args, out)
			}
		}
	}
	for _, line := range []string{"help", "help attach", "completion", "ca", "dns", "identity", "ip", "secret"} {
		if out := do(t, a, strings.Fields(line)...); !strings.Contains(out, "Usage:") {
			t.Errorf("weft %s: %s", line, out)
		}
	}
	if out := do(t, a, "version"); !strings.HasPrefix(out, "weft ") {
		t.Errorf("weft version: %s", out)
	}
	start(t, nodes)
	p := attach(t, a, "p", "--hostname", "web")
	p.reaches(t, attach(t, nodes[1], "p").addr)
	if routes := query[[]api.Route](t, a, "routes"); len(routes) != 1 || routes[0].Name != "b" || routes[0].Hops != 1 {
		t.Errorf("weft routes: %+v", routes)
	}
	for _, line := range []string{
		"status", "peers", "ipam", "fdb", "routes", "ip list", "ip lookup weft:expose", "dns list", "dns lookup web", "version", "doctor",
		"top --count 1 --interval 100ms", "reload", "report", "attach --netns " + p.Path(),
	} {
		argv := strings.Fields(line)
		if line != "report" { // it is JSON always
			argv = append(argv, "--json")
		}
		out, err := a.Do(testContext(t), argv...)
		if line != "doctor" && err != nil || !json.Valid([]byte(out)) { // a check of this host may fail
			t.Errorf("weft %v: %v: %s", argv, err, out)
		}
	}
	const escape = "\x1b["
	for _, command := range [][]string{{"status"}, {"top", "--count", "1", "--interval", "100ms"}, {"doctor"}} {
		out, _ := a.Do(testContext(t), append(command, "--color", "always")...) // a check of this host may fail
		if !strings.Contains(out, escape) {
			t.Errorf("weft %v with colors: %q", command, out)
		}
		if out, _ = a.Do(testContext(t), append(command, "--color", "never")...); strings.Contains(out, escape) {
			t.Errorf("weft %v without colors: %q", command, out)
		}
	}
	for _, order := range []string{"rate", "drops", "rtt", "name"} {
		if out := do(t, a, "top", "--count", "1", "--interval", "100ms", "--sort", order); !strings.Contains(out, "b") {
			t.Errorf("weft top --sort %s: %s", order, out)
		}
	}
}
