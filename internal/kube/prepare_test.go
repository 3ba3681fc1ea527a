package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"weft/internal/api"
	"weft/internal/hint"
)

// newPrepare returns a Prepare for a node with empty folders.
func newPrepare(t *testing.T) Prepare {
	t.Helper()
	return Prepare{
		Node: "node1", ConfigFile: filepath.Join(t.TempDir(), "weft", "kube.yaml"), SecretFile: filepath.Join(t.TempDir(), "secret"),
		Log: slog.New(slog.DiscardHandler),
	}
}

// start does what Run does, except for the settings of the kernel, on a cluster of n nodes.
func (p Prepare) start(n int) error {
	cfg, err := p.protection()
	if err != nil {
		return err
	}
	cfg.InitPeers = n
	return p.configure(cfg)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	_ = os.Remove(path)
	if err := os.WriteFile(path, []byte(text), 0o400); err != nil {
		t.Fatal(err)
	}
}

// refusedWith checks that an error refuses the start, and that it and its hint contain all parts.
func refusedWith(t *testing.T, err error, parts ...string) {
	t.Helper()
	e, ok := errors.AsType[*hint.Error](err)
	if !ok || e.ExitCode() != hint.ExitUsage {
		t.Fatalf("%v, want a refusal", err)
	}
	for _, part := range parts {
		if !strings.Contains(e.Error()+" "+e.Hint, part) {
			t.Errorf("%v; hint: %s: want %q", e, e.Hint, part)
		}
	}
}

// TestPrepare: the configuration has the secret file, or says that the node is plain; a node with neither is refused.
func TestPrepare(t *testing.T) {
	p := newPrepare(t)
	for _, secret := range []string{"", "\n"} {
		writeFile(t, p.SecretFile, secret)
		refusedWith(t, p.start(2), p.SecretFile, "--from-file=secret=/dev/stdin", "WEFT_PLAIN=true")
	}
	if _, err := os.Stat(filepath.Dir(p.ConfigFile)); err == nil {
		t.Error("a refused start created the state directory")
	}
	p.Plain = true
	if err := p.start(2); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(p.ConfigFile); string(got) != "init-peers: 2\nplain: true\n" {
		t.Errorf("plain: %q", got)
	}
	writeFile(t, p.SecretFile, "s3cret\n")
	refusedWith(t, p.start(2), "WEFT_PLAIN", "contradicts")
	p.Plain = false
	if err := p.start(2); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(p.ConfigFile); string(got) != "init-peers: 2\nsecret-file: "+p.SecretFile+"\nwatch-secret: true\n" {
		t.Errorf("with a secret: %q", got)
	}
}

// TestSecretGone: the Secret is deleted, or the volume is empty, as it is optional. The next start of the pod refuses, and leaves
// the configuration with the secret as it was.
func TestSecretGone(t *testing.T) {
	p := newPrepare(t)
	writeFile(t, p.SecretFile, "weft-secret-1 AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
	if err := p.start(3); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(p.ConfigFile)
	if err := os.Remove(p.SecretFile); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		refusedWith(t, p.start(3), p.SecretFile, "this node has had one", "Restore the Secret", "WEFT_PLAIN=true")
	}
	if after, _ := os.ReadFile(p.ConfigFile); string(after) != string(before) {
		t.Errorf("the configuration was %q and is %q", before, after)
	}
	p.Plain = true
	if err := p.start(3); err != nil {
		t.Errorf("on purpose: %v", err)
	}
}

// TestPrepareCountsNodes: nodes with a silent kubelet do not count. Without an API server the number of the last start holds.
func TestPrepareCountsNodes(t *testing.T) {
	silent := newNode("node3", "172.30.0.13", 0)
	silent.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown}}
	p := newPrepare(t)
	p.Plain = true
	p.API = fake.NewClientset(newNode("node1", "172.30.0.11", 0), newNode("node2", "172.30.0.12", 0), silent)
	n, err := p.bootstrapNodes(t.Context())
	if err != nil || n != 2 {
		t.Fatalf("%d nodes, %v", n, err)
	}
	away := fake.NewClientset()
	away.PrependReactor("list", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("no route to host")
	})
	p.API = away
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := p.bootstrapNodes(ctx); err == nil || !strings.Contains(err.Error(), "no route") {
		t.Errorf("without an API server: %v", err)
	}
	if err := p.start(2); err != nil {
		t.Fatal(err)
	}
	if n, err := p.bootstrapNodes(ctx); n != 2 || err != nil {
		t.Errorf("without an API server after a start: %d, %v", n, err)
	}
}

// TestPrepareLargeCluster: the number in the daemon's configuration never exceeds what the daemon accepts, so that pods of
// a cluster of any size can restart.
func TestPrepareLargeCluster(t *testing.T) {
	for nodes, want := range map[int]int{
		1: 1, 1001: 1001, api.MaxInitPeers - 1: api.MaxInitPeers - 1, api.MaxInitPeers: api.MaxInitPeers,
		api.MaxInitPeers + 1: api.MaxInitPeers, 5000: api.MaxInitPeers,
	} {
		list := &corev1.NodeList{}
		for i := range nodes {
			list.Items = append(list.Items, *newNode(fmt.Sprintf("node%d", i+1), "172.30.0.11", 0))
		}
		server := fake.NewClientset()
		server.PrependReactor("list", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) { return true, list, nil })
		p := Prepare{API: server, Node: "node1", ConfigFile: filepath.Join(t.TempDir(), "kube.yaml"), Log: newBench(t).cfg.Log}
		n, err := p.countNodes(t.Context())
		if err != nil || n != want {
			t.Fatalf("counted %d of %d nodes, want %d: %v", n, nodes, want, err)
		}
		if err := p.configure(configuration{InitPeers: n}); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(p.ConfigFile); string(got) != fmt.Sprintf("init-peers: %d\n", want) {
			t.Errorf("%d nodes: %q, want %d", nodes, got, want)
		}
	}
}

// TestRaiseNeighbors: limits that are too low are raised, others stay, and a namespace without them is no error. A removal of weft restores
// them.
func TestRaiseNeighbors(t *testing.T) {
	dir := t.TempDir()
	s := sysctls{net: filepath.Join(dir, "net"), boot: filepath.Join(dir, "boot_id")}
	if err := os.WriteFile(s.boot, []byte("boot"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := raiseNeighbors(s.net); err != nil {
		t.Errorf("in a namespace without the settings: %v", err)
	}
	folder := filepath.Join(s.net, "ipv4/neigh/default")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	before := map[string]string{"gc_thresh1": "128", "gc_thresh2": "100000", "gc_thresh3": "1024"}
	for name, value := range before {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, want map[string]string) {
		t.Helper()
		for name, value := range want {
			if text, err := os.ReadFile(filepath.Join(folder, name)); err != nil || strings.TrimSpace(string(text)) != value {
				t.Errorf("%s: %s is %q, want %s, %v", what, name, text, value, err)
			}
		}
	}
	if err := s.recordChanges(dir, slog.New(slog.DiscardHandler), func() error { return raiseNeighbors(s.net) }); err != nil {
		t.Fatal(err)
	}
	check("raised", map[string]string{"gc_thresh1": "8192", "gc_thresh2": "100000", "gc_thresh3": "65536"})
	if restored, err := s.restore(dir); err != nil || len(restored) != 2 {
		t.Errorf("restored %v, %v", restored, err)
	}
	check("restored", before)
}
