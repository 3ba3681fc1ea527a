package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"weft/internal/api"
	"weft/internal/nettest/labtest"
)

// lab is the cluster of one setting.
type lab struct {
	// Constant after startLab.
	all       *testing.T // the test of the setting; steps are subtests, which end earlier
	setting   setting
	script    string
	home      string // $LAB_HOME
	root      string // of this repository
	dir       string // for files of this run
	env       []string
	addresses map[string]string // what "lab settings" prints

	host *exec.Cmd // the daemon on the API host, once weft is installed
}

// patience is how long a test waits for what the cluster does by itself.
const patience = 2 * time.Minute

// labHome is the folder of the lab on this machine.
func labHome(t *testing.T) string {
	t.Helper()
	if home := os.Getenv("LAB_HOME"); home != "" {
		return home
	}
	user, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(user, ".cache", "weft-lab")
}

// newLab returns the lab of a setting, which has not started.
func newLab(t *testing.T, s setting) *lab {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{
		all: t, setting: s, home: labHome(t), root: root, dir: t.TempDir(),
		script: filepath.Join(root, "internal", "e2e", "kubernetes", "lab", "lab"),
	}
	// Programs of weft refuse variables with its prefix that are not settings of theirs.
	mine := func(variable string) bool { return strings.HasPrefix(variable, "WEFT_") }
	l.env = append(slices.DeleteFunc(os.Environ(), mine), "LAB_HOME="+l.home, "LAB_FAMILY="+s.family, "LAB_PROXY_MODE="+s.proxy)
	return l
}

// start starts the cluster, with weft's image on its nodes. The nodes are NotReady, because weft is not installed yet. The cluster ends
// with the test.
func (l *lab) start(t *testing.T) {
	t.Helper()
	l.must(t, "down") // what an interrupted run has left
	t.Cleanup(func() {
		if _, err := l.run(context.Background(), "down"); err != nil {
			t.Log(err)
		}
	})
	l.must(t, "up")
	l.addresses = map[string]string{}
	for line := range strings.Lines(l.must(t, "settings")) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		l.addresses[key] = value
	}
	image := filepath.Join(l.root, "bin", "weft-image.tar")
	if _, err := os.Stat(image); err != nil {
		t.Fatalf("run make image first: %v", err)
	}
	l.must(t, "load", image)
}

// command returns a command of the lab that has not started.
func (l *lab) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, l.script, args...)
	cmd.Env = l.env
	return cmd
}

// run runs a command of the lab and returns its standard output.
func (l *lab) run(ctx context.Context, args ...string) (string, error) {
	cmd := l.command(ctx, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("lab %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// must runs a command of the lab that must succeed, and returns its standard output.
func (l *lab) must(t testing.TB, args ...string) string {
	t.Helper()
	out, err := l.run(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// kubectl runs kubectl as the administrator, and returns its standard output.
func (l *lab) kubectl(t testing.TB, args ...string) string {
	t.Helper()
	return l.must(t, append([]string{"k"}, args...)...)
}

// apply applies a text of YAML or JSON.
func (l *lab) apply(t testing.TB, text string) {
	t.Helper()
	l.kubectl(t, "apply", "-f", l.file(t, "apply.yaml", text))
}

// file writes a file of this run, and returns its path.
func (l *lab) file(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// onNode runs a command on a node, and returns its standard output.
func (l *lab) onNode(t testing.TB, node int, args ...string) string {
	t.Helper()
	return l.must(t, append([]string{"node", strconv.Itoa(node)}, args...)...)
}

// weft runs a weft command on a node, and returns its standard output.
func (l *lab) weft(t testing.TB, node int, args ...string) string {
	t.Helper()
	return l.onNode(t, node, append([]string{filepath.Join(l.root, "bin", "weft")}, args...)...)
}

// status returns what "weft status" shows on a node.
func (l *lab) status(t testing.TB, node int) (s api.Status) {
	t.Helper()
	if err := json.Unmarshal([]byte(l.weft(t, node, "status", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// local runs a weft command that needs no node, and returns its output.
func (l *lab) local(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), filepath.Join(l.root, "bin", "weft"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("weft %s: %v: %s", args[0], err, out)
	}
	return string(out)
}

// weftPod returns the name of weft's pod on a node.
func (l *lab) weftPod(t testing.TB, node int) string {
	t.Helper()
	return l.kubectl(t, "-n", "kube-system", "get", "pods", "-l", "app=weft", fmt.Sprintf("--field-selector=spec.nodeName=node%d", node),
		"-o", "jsonpath={.items[0].metadata.name}")
}

// nodeAddress returns an address of a node: the primary one, or that of an address family, 4 or 6. It is empty if there is none.
func (l *lab) nodeAddress(node, family int) string {
	for _, a := range strings.Split(l.addresses["NODE"+strconv.Itoa(node)], ",") {
		if family == 0 || strings.Contains(a, ":") == (family == 6) {
			return a
		}
	}
	return ""
}

// families are the address families of the cluster, the primary one first.
func (l *lab) families() []int {
	switch l.setting.family {
	case "dual":
		return []int{4, 6}
	case "ipv6":
		return []int{6}
	default:
		return []int{4}
	}
}

// netspace opens a network namespace in /run/netns of a node. It is closed at the end of the test.
func (l *lab) netspace(t testing.TB, node int, name string) netns.NsHandle {
	t.Helper()
	ns, err := netns.GetFromPath(filepath.Join(l.nodeRoot(t, node), "run", "netns", name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	return ns
}

// nodeRoot returns the root folder of a node, as this process sees it.
func (l *lab) nodeRoot(t testing.TB, node int) string {
	t.Helper()
	pid, err := os.ReadFile(filepath.Join(l.home, "cluster", "run", fmt.Sprintf("node%d.pid", node)))
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join("/proc", strings.TrimSpace(string(pid)), "root")
}

// until waits until f returns nil, for at most two minutes.
func until(t testing.TB, f func() error) {
	t.Helper()
	labtest.Until(t, patience, f)
}
