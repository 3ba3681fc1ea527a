package deploy

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/client-go/util/jsonpath"
)

// fakeKubectl is a kubectl that writes its arguments to a file, one call a line, and lists the pods of $PODS. $EXIT is the exit code of
// exec for pod-b.
const fakeKubectl = `#!/bin/sh
printf '%s\n' "$*" >>"$CALLS"
case " $* " in
*" get pods "*) [ -z "${FAIL:-}" ] || { echo "connection refused" >&2; exit 1; }; printf '%b' "$PODS" ;;
*" get node node1 "* | *" get node empty "*) ;;
*" get node "*) echo "not found" >&2; exit 1 ;;
*" exec "*" pod-b "*) echo "weft of b"; exit "${EXIT:-0}" ;;
*" exec "*) echo "weft ran" ;;
esac
`

// plugin is kubectl-weft with a fake kubectl.
type plugin struct {
	t    *testing.T
	dir  string
	pods string // what kubectl lists: node, name, ready, deletion; with escapes
	env  []string
}

// run runs the plugin. calls are the arguments of the calls of kubectl but the first, which lists the pods.
func (p *plugin) run(args ...string) (calls []string, out string, code int) {
	p.t.Helper()
	log := filepath.Join(p.dir, "calls")
	_ = os.Remove(log)
	cmd := exec.CommandContext(p.t.Context(), "./kubectl-weft", args...)
	cmd.Env = append([]string{"PATH=" + p.dir + ":" + os.Getenv("PATH"), "CALLS=" + log, "PODS=" + p.pods}, p.env...)
	text, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		p.t.Fatal(err)
	}
	logged, _ := os.ReadFile(log)
	calls = strings.Split(strings.TrimSpace(string(logged)), "\n")
	return calls[1:], string(text), code
}

func newPlugin(t *testing.T) *plugin {
	t.Helper()
	p := &plugin{t: t, dir: t.TempDir(), pods: `node1\tpod-a\tfalse\t\nnode2\tpod-b\ttrue\t\n` +
		`node3\tpod-old\ttrue\t2026-01-01\nnode3\tpod-c\ttrue\t\n`}
	if err := os.WriteFile(filepath.Join(p.dir, "kubectl"), []byte(fakeKubectl), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	return p
}

// TestKubectlWeft: the plugin runs weft in the pod of the chosen node, by default the first ready one, or in all.
func TestKubectlWeft(t *testing.T) {
	p := newPlugin(t)
	for _, test := range []struct{ args, want string }{
		{"status", "-n kube-system exec -i pod-b -c weft -- weft status"},
		{"--node node1 peers --json", "-n kube-system exec -i pod-a -c weft -- weft peers --json"},
		{"--node=node3 -n net status", "-n net exec -i pod-c -c weft -- weft status"},
		{"--context lab --kubeconfig f --namespace=x --node node2 -- ip list",
			"--context=lab --kubeconfig=f -n x exec -i pod-b -c weft -- weft ip list"},
	} {
		calls, out, code := p.run(strings.Fields(test.args)...)
		if !slices.Equal(calls, []string{test.want}) || code != 0 || !strings.Contains(out, "weft") {
			t.Errorf("%s: calls %q, exit code %d: %s", test.args, calls, code, out)
		}
	}
	calls, out, code := p.run("--all", "status")
	if want := "== node1\nweft ran\n== node2\nweft of b\n== node3\nweft ran\n"; out != want || code != 0 || len(calls) != 3 {
		t.Errorf("--all: %q, exit code %d, calls %q", out, code, calls)
	}
	p.env = []string{"EXIT=3"}
	if _, out, code := p.run("--all", "status"); code != 3 || !strings.Contains(out, "== node3\nweft ran") {
		t.Errorf("--all with a failure: %q, exit code %d", out, code)
	}
	if _, _, code := p.run("status"); code != 3 {
		t.Errorf("the exit code of weft is lost: %d", code)
	}
}

// TestKubectlWeftErrors: each wrong call has its own message.
func TestKubectlWeftErrors(t *testing.T) {
	for _, test := range []struct {
		args, pods, env, want string
		code                  int
	}{
		{"", "", "", "which command of weft?", 2},
		{"--node", "", "", "--node needs a value", 2},
		{"--nodes x status", "", "", "unknown option --nodes", 2},
		{"--node a --all status", "", "", "contradict", 2},
		{"--node other status", "", "", "there is no node other", 1},
		{"--node empty status", "", "", "node empty has no pod of weft", 1},
		{"status", `node1\tpod-a\tfalse\t\n\tpod-b\t\t\n`, "", "no pod of weft is ready", 1},
		{"status", " ", "", "no pods of weft in the namespace kube-system", 1},
		{"status", "", "FAIL=1", "cannot list the pods", 1},
		{"status", "", "PATH=/nowhere:/usr/bin/nothing", "there is no kubectl", 1},
	} {
		p := newPlugin(t)
		if test.pods != "" {
			p.pods = strings.TrimSpace(test.pods)
		}
		p.env = strings.Fields(test.env)
		if _, out, code := p.run(strings.Fields(test.args)...); code != test.code || !strings.Contains(out, test.want) {
			t.Errorf("%q: exit code %d, want %d: %s", test.args, code, test.code, out)
		}
	}
}

// TestKubectlWeftQuery: the query of the plugin prints a line a pod, also of those that have not started.
func TestKubectlWeftQuery(t *testing.T) {
	m := regexp.MustCompile(`-o 'jsonpath=([^']+)'`).FindStringSubmatch(read(t, "kubectl-weft"))
	if m == nil {
		t.Fatal("no query")
	}
	pod := func(node, name string, ready bool, deleted string) map[string]any {
		meta := map[string]any{"name": name}
		if deleted != "" {
			meta["deletionTimestamp"] = deleted
		}
		statuses := []any{map[string]any{"name": "kube", "ready": !ready}, map[string]any{"name": "weft", "ready": ready}}
		return map[string]any{
			"metadata": meta, "spec": map[string]any{"nodeName": node}, "status": map[string]any{"containerStatuses": statuses},
		}
	}
	pending := map[string]any{"metadata": map[string]any{"name": "d"}, "spec": map[string]any{}, "status": map[string]any{}}
	query := jsonpath.New("pods").AllowMissingKeys(true) // as kubectl does
	if err := query.Parse(m[1]); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := query.Execute(&out, map[string]any{"items": []any{
		pod("node1", "a", true, ""), pod("node2", "b", false, "2026-01-01"), pending,
	}}); err != nil {
		t.Fatal(err)
	}
	if want := "node1\ta\ttrue\t\nnode2\tb\tfalse\t2026-01-01\n\td\t\t\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

// TestKubectlWeftHelp: the help lists the options.
func TestKubectlWeftHelp(t *testing.T) {
	_, out, code := newPlugin(t).run("--help")
	for _, want := range []string{"--node NODE", "--all", "--context NAME", "exit code"} {
		if code != 0 || !strings.Contains(out, want) || strings.Contains(out, "set -eu") {
			t.Errorf("exit code %d: %s", code, out)
		}
	}
}
