package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// refused runs "weft up", which must exit with code 2, print want and a hint, and not change the host.
func refused(t *testing.T, n *cluster.Node, env []string, want string, args ...string) {
	t.Helper()
	before := links(t, n.Host)
	argv := append([]string{"up", "--state-dir", n.StateDir(), "--socket", n.Socket()}, args...)
	ctx, cancel := context.WithTimeout(t.Context(), patience) // a daemon that is not refused keeps running
	defer cancel()
	cmd := n.Weft(ctx, argv...)
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 2 {
		t.Errorf("weft up %v: %v, want exit code 2\n%s", args, err, out)
	}
	if !strings.Contains(string(out), want) || !strings.Contains(string(out), "hint: ") {
		t.Errorf("weft up %v printed no %q or no hint:\n%s", args, want, out)
	}
	if diff := cmp.Diff(before, links(t, n.Host)); diff != "" {
		t.Errorf("weft up %v changed the host: %s", args, diff)
	}
}

func TestBadFlagsAreRefused(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	dir := t.TempDir()
	config := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct {
		want string
		env  []string
		args []string
	}{
		{"--no-such-flag", nil, []string{"--no-such-flag"}},
		{"--range", nil, []string{"--range", "hello"}},
		{"--range", nil, []string{"--range", "10.32.0.1/12"}},
		{"--range", nil, []string{"--range", "10.32.0.0/31"}},
		{"--range", nil, []string{"--range", "224.0.0.0/8"}},
		{"overlaps 10.32.0.0/12", nil, []string{"--range", "10.32.0.0/12", "--range", "10.33.0.0/16"}},
		{"overlaps the host's route 192.168.77.0/24", nil, []string{"--range", "192.168.0.0/16"}},
		{"--port", nil, []string{"--port", "65535"}},
		{"--port", nil, []string{"--port", "many"}},
		{"--mtu", nil, []string{"--mtu", "100"}},
		{"--queues", nil, []string{"--queues", "9"}},
		{"--init-peers", nil, []string{"--init-peers", "-7"}},
		{"--advertise", nil, []string{"--advertise", "here"}},
		{"--bridge", nil, []string{"--bridge", "a-name-that-is-too-long"}},
		{"--bridge", nil, []string{"--bridge", "eth0"}},
		{"--tap", nil, []string{"--tap", "eth0"}},
		{"--cipher", nil, []string{"--cipher", "rot13"}},
		{"--datapath", nil, []string{"--datapath", "carrier-pigeon"}},
		{"--offload", nil, []string{"--offload", "some"}},
		{"--log-level", nil, []string{"--log-level", "loud"}},
		{"--log-format", nil, []string{"--log-format", "xml"}},
		{"--http-addr", nil, []string{"--http-addr", "nowhere"}},
		{"--secret-file", nil, []string{"--secret-file", "/etc/hostname"}},
		{"--config", nil, []string{"--config", "/no/such/file"}},
		{`unknown key "mtuu"`, nil, []string{"--config", config("unknown", "mtuu: 1400\n")}},
		{"mtu in ", nil, []string{"--config", config("value", "mtu: tiny\n")}},
		{"WEFT_MTU", []string{"WEFT_MTU=tiny"}, nil},
		{"is not a host name or address", nil, []string{"host:port:more:"}},
		{"is a URL, and a peer is a host", nil, []string{"http://host"}},
		{"is an IPv6 address without brackets", nil, []string{"2001:db8::1"}},
		{`WEFT_MUT is unknown`, []string{"WEFT_MUT=1400"}, nil},
		{"--mtu: 9000 does not fit", nil, []string{"--mtu", "9000"}},
	} {
		t.Run(strings.Join(append(tt.env, tt.args...), " "), func(t *testing.T) { refused(t, n, tt.env, tt.want, tt.args...) })
	}
	if _, err := os.Stat(n.StateDir()); err == nil {
		t.Error("a refused start created the state directory")
	}
}

func TestPortInUseIsRefused(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a")
	start(t, nodes, "--http-addr", "")
	n := nodes[0]
	other := filepath.Join(n.Dir(), "other")
	args := []string{"--state-dir", other, "--socket", other + ".sock", "--bridge", "br2", "--tap", "tap2", "--http-addr", ""}
	refused(t, n, nil, "tcp port 6783 for gossip", args...)
	refused(t, n, nil, "udp port 6783 for data", append(args, "--port", "6782")...)
	refused(t, n, nil, "another weft daemon answers")
	refused(t, n, nil, "weft0 is in use", "--socket", other+".sock", "--port", "7000")
}

func TestPrivilegesAndTunAreNamed(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	for _, tt := range []struct{ want, script string }{
		{"CAP_NET_ADMIN", `exec setpriv --bounding-set=-net_admin --inh-caps=-net_admin "$0" "$@"`},
		{"/dev/net/tun", `mount -t tmpfs tmpfs /dev/net && exec "$0" "$@"`},
	} {
		t.Run(tt.want, func(t *testing.T) {
			argv := []string{"unshare", "--mount", "sh", "-c", tt.script, filepath.Join(bin, "weft"), "up",
				"--state-dir", n.StateDir(), "--socket", n.Socket()}
			out, err := n.Command(testContext(t), argv...).CombinedOutput()
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.ExitCode() != 2 || !strings.Contains(string(out), tt.want) || !strings.Contains(string(out), "hint: ") {
				t.Errorf("%v, want exit code 2 and an error about %s:\n%s", err, tt.want, out)
			}
		})
	}
}

// TestBadStateIsRefused damages the files of a state directory in turn. The daemon must not start and not overwrite them.
func TestBadStateIsRefused(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	up(t, n)
	waitReady(t, []*cluster.Node{n})
	do(t, n, "ip", "allocate", "x")
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	labtest.Run(t, n.Space, "ip", "link", "del", "weave")
	refused(t, n, nil, "10.32.0.0/12", "--range", "10.48.0.0/12")
	for _, tt := range []struct{ file, content, want string }{
		{"node.key", "garbage", "node.key"},
		{"node.key", "weft-node-key-1 AAAA", "node.key"},
		{"node.key", "", "node.key"},
		{"ipam.db", "garbage", "ipam.db"},
		{"targets.json", "garbage", "targets.json"},
	} {
		path := filepath.Join(n.StateDir(), tt.file)
		good, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, n, nil, tt.want)
		if now, _ := os.ReadFile(path); string(now) != tt.content {
			t.Errorf("%s was overwritten", path)
		}
		if good == nil {
			err = os.Remove(path)
		} else {
			err = os.WriteFile(path, good, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	up(t, n)
	waitReady(t, []*cluster.Node{n})
	if leases := query[[]api.Lease](t, n, "ip", "lookup", "x"); len(leases) != 1 {
		t.Errorf("the lease at the end: %v", leases)
	}
}

func TestReadOnlyStateIsRefused(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	script := `mkdir -p "$1" && mount -t tmpfs -o ro tmpfs "$1" && exec "$0" up --state-dir "$1" --socket "$2"`
	cmd := n.Command(testContext(t), "unshare", "--mount", "sh", "-c", script, filepath.Join(bin, "weft"), n.StateDir(), n.Socket())
	out, err := cmd.CombinedOutput()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 2 || !strings.Contains(string(out), n.StateDir()) || !strings.Contains(string(out), "hint: ") {
		t.Errorf("%v, want exit code 2 and an error about %s:\n%s", err, n.StateDir(), out)
	}
}

// TestCloneStops starts a node with a copy of another node's key. It is refused, and the first node keeps running.
func TestCloneStops(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	clone := cluster.NewNode(labtest.AddHost(t, nodes[0].Lab(), "clone"), bin)
	if err := os.MkdirAll(clone.StateDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(nodes[0].StateDir(), "node.key"))
	if err == nil {
		err = os.WriteFile(filepath.Join(clone.StateDir(), "node.key"), key, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	refused(t, clone, nil, "another node runs with this node's key", nodes[1].Addr().String())
	waitReady(t, nodes)
}

// TestOtherFilesAreNotChanged: weft refuses an ordinary file as the socket, and a folder with other files as the state
// directory, and changes neither.
func TestOtherFilesAreNotChanged(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	dir := t.TempDir()
	notes := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(notes, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	refused(t, n, nil, "--socket", "--socket", notes)
	refused(t, n, nil, "--state-dir", "--state-dir", dir)
	if text, err := os.ReadFile(notes); err != nil || string(text) != "mine" {
		t.Errorf("the file is now %q, %v", text, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the folder is now %v, %v", info.Mode(), err)
	}
}

func TestCommandsWithoutADaemon(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	for _, args := range [][]string{{"status"}, {"peers", "--json"}, {"ip", "list"}, {"expose"}, {"wait", "--timeout", "10ms"}} {
		out, err := n.Weft(testContext(t), args...).CombinedOutput()
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok || exit.ExitCode() != 3 || !strings.Contains(string(out), n.Socket()) {
			t.Errorf("weft %v: %v, want exit code 3 and the socket's path:\n%s", args, err, out)
		}
	}
	for _, args := range [][]string{{"no-such-command"}, {"status", "more"}, {"attach"}, {"ip", "claim", "x"}, {"ip", "claim", "x", "y"}} {
		out, err := n.Weft(testContext(t), args...).CombinedOutput()
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok || exit.ExitCode() != 2 || !strings.Contains(string(out), "hint: ") {
			t.Errorf("weft %v: %v, want exit code 2 and a hint:\n%s", args, err, out)
		}
	}
}
