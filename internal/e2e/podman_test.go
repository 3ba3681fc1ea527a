package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/critest"
	"weft/internal/nettest/labtest"
)

// podman is a podman with separate storage on a host.
type podman struct {
	node *cluster.Node
	conf string
	args []string
	root string // root file system of all containers
}

const podmanConf = `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "none"
[engine]
runtime = "runc"
events_logger = "none"
cgroup_manager = "cgroupfs"
[network]
network_backend = "cni"
cni_plugin_dirs = [%q]
network_config_dir = %q
`

func newPodman(t *testing.T, n *cluster.Node) *podman {
	t.Helper()
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("podman is not installed (make e2e installs it)")
	}
	install := installOn(t, n)
	install.Names = true
	if _, err := install.Configuration(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(n.Dir(), "podman")
	p := &podman{node: n, conf: filepath.Join(dir, "containers.conf"), root: filepath.Join(dir, "rootfs")}
	if err := os.MkdirAll(p.root, 0o755); err != nil { //nolint:gosec // a root file system
		t.Fatal(err)
	}
	if err := critest.BuildPause(testContext(t), filepath.Join(p.root, "pause")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.conf, fmt.Appendf(nil, podmanConf, install.BinDir, install.ConfDir), 0o600); err != nil {
		t.Fatal(err)
	}
	p.args = []string{
		"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"),
		"--storage-driver", "vfs",
	}
	return p
}

func (p *podman) do(ctx context.Context, args ...string) (string, error) {
	cmd := p.node.Command(ctx, append(append([]string{"podman"}, p.args...), args...)...)
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+p.conf)
	out, err := cmd.Output()
	if err != nil {
		text := ""
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			text = string(e.Stderr)
		}
		return "", fmt.Errorf("podman %s: %w: %s", strings.Join(args, " "), err, text)
	}
	return strings.TrimSpace(string(out)), nil
}

// run starts a container in the weft network.
func (p *podman) run(ctx context.Context, name string, options ...string) (*critest.Pod, error) {
	args := append([]string{"run", "--detach", "--name", name, "--network", "weft"}, options...)
	id, err := p.do(ctx, append(args, "--rootfs", p.root, "/pause")...)
	if err != nil {
		return nil, err
	}
	text, err := p.do(ctx, "inspect", id)
	if err != nil {
		return nil, err
	}
	var docs []struct {
		NetworkSettings struct {
			SandboxKey string
			Networks   map[string]struct{ IPAddress, MacAddress string }
		}
	}
	if err := json.Unmarshal([]byte(text), &docs); err != nil {
		return nil, err
	}
	s := docs[0].NetworkSettings
	return &critest.Pod{ID: id, IPs: []string{s.Networks["weft"].IPAddress, s.Networks["weft"].MacAddress}, Netns: s.SandboxKey}, nil
}

// TestPodman: podman with its CNI backend creates and removes fifty containers, with published ports, names, a requested IP and
// MAC address, and a restart. Nothing is left of them at the end.
func TestPodman(t *testing.T) {
	const count = 50
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	a, b := nodes[0], nodes[1]
	p := newPodman(t, a)
	publish := func(i int) string { return fmt.Sprintf("--publish=%d:80", 20000+i) }
	remove := func(c *critest.Pod) error {
		_, err := p.do(testContext(t), "rm", "--force", "--time", "0", c.ID)
		return err
	}
	first, err := p.run(testContext(t), "first", publish(count))
	if err != nil {
		t.Fatal(err)
	}
	if err := remove(first); err != nil {
		t.Fatal(err)
	}
	before := leftovers(t, a)
	containers := make([]*critest.Pod, count)
	var group errgroup.Group
	group.SetLimit(4)
	for i := range containers {
		group.Go(func() (err error) {
			containers[i], err = p.run(testContext(t), fmt.Sprint("c", i), publish(i))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	client := attach(t, b, "client")
	last := containers[count-1]
	client.reaches(t, netip.MustParseAddr(last.IPs[0]))
	reachedByPort(t, a, b, last, 20000+count-1)
	static, err := p.run(testContext(t), "static", "--ip", "10.32.7.7", "--mac-address", "aa:bb:cc:dd:ee:01")
	if err != nil {
		t.Fatal(err)
	}
	if static.IPs[0] != "10.32.7.7" || static.IPs[1] != "aa:bb:cc:dd:ee:01" {
		t.Errorf("the container with requested addresses has %v", static.IPs)
	}
	if _, err := p.do(testContext(t), "restart", "--time", "0", static.ID); err != nil { // DEL and ADD with the same name
		t.Error(err)
	}
	client.reaches(t, netip.MustParseAddr("10.32.7.7"))
	client.answers(t, fmt.Sprintf("c%d.weft.local", count-1), last.IPs[0])
	client.answers(t, "static.weft.local", "10.32.7.7")
	path, err := p.do(testContext(t), "inspect", "--format", "{{.ResolvConfPath}}", static.ID)
	if err != nil {
		t.Fatal(err)
	}
	resolvers, err := os.ReadFile(path)
	if gateway := query[api.Status](t, a, "status").Exposed[0].Addr(); err != nil ||
		!strings.Contains(string(resolvers), "nameserver "+gateway.String()+"\n") || !strings.Contains(string(resolvers), "search weft.local\n") {
		t.Errorf("the container asks others for names than %s: %s, %v", gateway, resolvers, err)
	}
	for _, c := range append(containers, static) {
		group.Go(func() error { return remove(c) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	client.answers(t, "static.weft.local")
	if diff := cmp.Diff(before, leftovers(t, a)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

// TestPodmanFlushedPorts: a published port of podman works again after its rules were flushed.
func TestPodmanFlushedPorts(t *testing.T) {
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	a, b := nodes[0], nodes[1]
	p := newPodman(t, a)
	c, err := p.run(testContext(t), "web", "--publish=20080:80")
	if err != nil {
		t.Fatal(err)
	}
	reachedByPort(t, a, b, c, 20080)
	runLines(t, a, "iptables -t nat -F")
	waitCondition(t, a, "after the flush", health.HostPortsFlushed, "20080/tcp of web")
	labtest.Until(t, patience, func() error {
		_, err := b.Run(testContext(t), "curl", "--silent", "--fail", "--max-time", "3", fmt.Sprintf("http://%s:20080", a.Addr()))
		return err
	})
	if _, err := p.do(testContext(t), "rm", "--force", "--time", "0", c.ID); err != nil {
		t.Fatal(err)
	}
	waitCondition(t, a, "without the container", health.HostPortsFlushed)
}
