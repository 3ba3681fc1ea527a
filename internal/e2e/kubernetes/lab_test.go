package kubernetes

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/internal/nettest/labtest"
)

// Settings that depend on the lab.
const (
	podRange = "10.244.0.0/16"     // the pod range in the configuration of kube-proxy
	stateDir = "/var/lib/cni/weft" // a folder of the nodes that survives reboots
)

// lab is the cluster.
type lab struct {
	all    *testing.T // the whole test; steps are subtests, which end earlier
	script string
	home   string // $K8SLAB
	root   string // of this repository
	env    []string
	host   *exec.Cmd // the daemon on the API server's host
	dir    string    // of that daemon
}

// run runs a command of the lab and returns its standard output.
func (l *lab) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, l.script, args...)
	cmd.Env = l.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("lab %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// must runs a command of the lab that must succeed, and returns its standard output.
func (l *lab) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := l.run(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// kubectl runs kubectl as the administrator, and returns its standard output.
func (l *lab) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return l.must(t, append([]string{"k"}, args...)...)
}

// weft runs a weft command on a node, and returns its standard output.
func (l *lab) weft(t *testing.T, node int, args ...string) string {
	t.Helper()
	return l.must(t, append([]string{"nx", fmt.Sprint(node), filepath.Join(l.root, "bin", "weft")}, args...)...)
}

// until waits until f returns nil, for at most two minutes.
func until(t *testing.T, f func() error) {
	t.Helper()
	labtest.Until(t, 2*time.Minute, f)
}

// open starts the lab, with weft's image on its nodes. The nodes are NotReady, because weft is not installed yet.
func open(t *testing.T) *lab {
	t.Helper()
	script := os.Getenv("WEFT_LAB")
	if script == "" {
		t.Skip("WEFT_LAB does not name a script that creates a cluster: see the documentation of the package")
	}
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	home := os.Getenv("K8SLAB")
	if home == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		home = filepath.Join(user, ".cache", "k8slab")
	}
	newer := filepath.Join(home, "bin", "ctd2")
	l := &lab{all: t, script: script, home: home, root: root, dir: t.TempDir()}
	l.env = append(os.Environ(), "K8SLAB="+home, "CTD="+filepath.Join(newer, "containerd"), "PATH="+newer+":"+os.Getenv("PATH"))
	for _, step := range []string{"deps", "build", "build-ctd2", "build-e2e"} {
		t.Logf("lab %s", step)
		l.must(t, step)
	}
	image, err := os.ReadFile(filepath.Join(root, "bin", "weft-image.tar"))
	if err == nil {
		err = os.WriteFile(filepath.Join(home, "img", "weft-image.tar"), image, 0o600)
	}
	if err != nil {
		t.Fatalf("run make image first: %v", err)
	}
	l.must(t, "up")
	t.Cleanup(func() {
		if _, err := l.run(context.Background(), "down"); err != nil {
			t.Log(err)
		}
	})
	l.aliasImages(t)
	return l
}

// aliasImages tags images for upstream tests. Some images in these tests are not available without a registry; images with
// the same tools replace them.
func (l *lab) aliasImages(t *testing.T) {
	t.Helper()
	const tests = "registry.k8s.io/e2e-test-images/"
	for _, alias := range [][2]string{
		{tests + "agnhost:2.63.0", tests + "jessie-dnsutils:1.7"},
		{tests + "agnhost:2.63.0", tests + "glibc-dns-testing:2.0.0"},
		{tests + "agnhost:2.63.0", tests + "agnhost:2.55"},
		{"registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10.2"},
		{"docker.io/library/busybox:1.35", tests + "busybox:1.37.0-1"},
	} {
		for node := 1; node <= 2; node++ {
			l.must(t, "nx", fmt.Sprint(node), "ctr", "-n", "k8s.io", "images", "tag", "--force", alias[0], alias[1])
		}
	}
}

// manifest returns the path of deploy/kubernetes.yaml, with the changes that this cluster needs.
func (l *lab) manifest(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(l.root, "deploy", "kubernetes.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer("10.32.0.0/12", podRange, "path: /var/lib/weft,", "path: "+stateDir+",",
		"path: /var/lib/weft/kube,", "path: "+stateDir+"/kube,").Replace(string(text))
	path := filepath.Join(l.dir, "weft.yaml")
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// join connects the host of the API server to the overlay.
func (l *lab) join(t *testing.T, secret string) {
	t.Helper()
	inside := func(args ...string) *exec.Cmd {
		argv := append([]string{"--net=/run/netns/kcp", filepath.Join(l.root, "bin", "weft")}, args...)
		cmd := exec.Command("nsenter", argv...) //nolint:gosec // a test
		cmd.Env = append(l.env, "WEFT_SOCKET="+filepath.Join(l.dir, "weft.sock"))
		return cmd
	}
	for _, r := range []string{"10.244.0.0/24", "10.244.1.0/24"} { // routes of the lab for networks with one subnet per node
		_ = exec.Command("nsenter", "--net=/run/netns/kcp", "ip", "route", "del", r).Run() //nolint:gosec // a test
	}
	l.host = inside("up", "--name", "kcp", "--state-dir", filepath.Join(l.dir, "state"), "--socket", filepath.Join(l.dir, "weft.sock"),
		"--range", podRange, "--init-peers", "0", "--secret-file", secret, "--http-addr", "", "172.30.0.11", "172.30.0.12")
	if err := l.host.Start(); err != nil {
		t.Fatal(err)
	}
	l.all.Cleanup(func() {
		_ = l.host.Process.Signal(os.Interrupt)
		_ = l.host.Wait()
	})
	for _, args := range [][]string{{"wait", "--timeout", "60s"}, {"expose"}} {
		if out, err := inside(args...).CombinedOutput(); err != nil {
			t.Fatalf("weft %s: %v: %s", args[0], err, out)
		}
	}
}
