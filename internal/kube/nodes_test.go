package kube

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clienttesting "k8s.io/client-go/testing"

	"weft/internal/api"
	"weft/internal/kube/bridgenf"
)

// watching runs the cluster cache and the nodes of an agent until the returned function is called. It must be called in a
// bubble of synctest.
func (b *bench) watching(t *testing.T) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c, err := newCluster(b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	n, err := newNodes(b.cfg, c)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	go func() { done <- c.Run(ctx) }()
	go func() { done <- n.run(ctx) }()
	time.Sleep(10 * time.Second) // of the bubble
	return func() { cancel(); _, _ = <-done, <-done }
}

// TestTargets: the daemon receives the addresses of the other nodes, and again after a change and after its restart.
func TestTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		windows := newNode("node9", "172.30.0.19", 0)
		windows.Labels[corev1.LabelOSStable] = "windows"
		b := newBench(t, newNode("node1", "172.30.0.11", 0), newNode("node2", "172.30.0.12", 0), windows)
		stop := b.watching(t)
		defer stop()
		if _, err := b.api.CoreV1().Nodes().Create(t.Context(), newNode("node3", "172.30.0.13", 0), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		b.daemon.with(func(d *fakeDaemon) { d.status.Since = time.Now() })
		time.Sleep(10 * time.Second)
		want := [][]string{{"172.30.0.12"}, {"172.30.0.12", "172.30.0.13"}, {"172.30.0.12", "172.30.0.13"}}
		b.daemon.with(func(d *fakeDaemon) {
			if diff := cmp.Diff(want, d.connected); diff != "" {
				t.Error(diff)
			}
		})
	})
}

// TestAnnounce: the ID of the daemon and the ready network are written to the node's object, once each.
func TestAnnounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newNode("node1", "172.30.0.11", 0)
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionTrue}}
		b := newBench(t, node)
		b.daemon.status.Ready = false
		stop := b.watching(t)
		defer stop()
		state := func() *corev1.Node {
			n, err := b.api.CoreV1().Nodes().Get(t.Context(), "node1", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		if n := state(); n.Annotations[PeerAnnotation] != idOf(1).String() || networkUnavailable(n) != corev1.ConditionTrue {
			t.Errorf("before the daemon is ready: %v %v", n.Annotations, n.Status.Conditions)
		}
		b.daemon.with(func(d *fakeDaemon) {
			d.status.Ready = true
			d.status.Exposed = []netip.Prefix{netip.MustParsePrefix("fd32::1/64"), netip.MustParsePrefix("10.32.0.1/12")}
		})
		time.Sleep(time.Minute)
		if n := state(); networkUnavailable(n) != corev1.ConditionFalse || n.Annotations[AddressesAnnotation] != "10.32.0.1,fd32::1" {
			t.Errorf("conditions %v, annotations %v", n.Status.Conditions, n.Annotations)
		}
		patches := slices.DeleteFunc(b.api.Actions(), func(a clienttesting.Action) bool { return a.GetVerb() != "patch" })
		if len(patches) != 3 {
			t.Errorf("%d patches: %v", len(patches), patches)
		}
	})
}

// owners returns an address space that nodes own.
func owners(ids ...byte) api.IPAM {
	r := api.IPAMRange{}
	for _, id := range ids {
		r.Owners = append(r.Owners, api.IPAMOwner{ID: idOf(id), Addresses: 256})
	}
	return api.IPAM{Ranges: []api.IPAMRange{r}}
}

// TestReclaim: only the address space of deleted nodes with dead daemons is reclaimed.
func TestReclaim(t *testing.T) {
	self := api.Peer{ID: idOf(1), State: api.PeerAlive, Self: true}
	for name, c := range map[string]struct {
		change func(t *testing.T, b *bench)
		want   []string // of the first call
	}{
		"deleted and dead": {func(t *testing.T, b *bench) {
			deleteNode(t, b, "node2")
		}, []string{idOf(2).String()}},
		"deleted, but alive": {func(t *testing.T, b *bench) {
			b.daemon.with(func(d *fakeDaemon) { d.peers[1].State = api.PeerAlive })
			deleteNode(t, b, "node2")
		}, nil},
		"dead, but not deleted": {func(*testing.T, *bench) {}, nil},
		"two at once": {func(t *testing.T, b *bench) {
			deleteNode(t, b, "node2")
			deleteNode(t, b, "node3")
		}, []string{idOf(2).String(), idOf(3).String()}},
		"created again with its disk": {func(t *testing.T, b *bench) {
			deleteNode(t, b, "node2")
			again := newNode("node2", "172.30.0.12", 2)
			again.UID = "another"
			createNode(t, b, again)
		}, nil},
		"created again without its disk": {func(t *testing.T, b *bench) {
			deleteNode(t, b, "node2")
			again := newNode("node2", "172.30.0.12", 4)
			again.UID = "another"
			createNode(t, b, again)
		}, []string{idOf(2).String()}},
		"owns nothing": {func(t *testing.T, b *bench) {
			b.daemon.with(func(d *fakeDaemon) { d.ipam = owners(1, 3, 9) })
			deleteNode(t, b, "node2")
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, newNode("node1", "172.30.0.11", 1), newNode("node2", "172.30.0.12", 2), newNode("node3", "172.30.0.13", 3))
				// 9 is a host outside of the cluster.
				b.daemon.ipam = owners(1, 2, 3, 9)
				b.daemon.peers = []api.Peer{self}
				for _, id := range []byte{2, 3, 9} {
					b.daemon.peers = append(b.daemon.peers, api.Peer{ID: idOf(id), State: api.PeerDead})
				}
				stop := b.watching(t)
				c.change(t, b)
				time.Sleep(time.Minute)
				stop()
				b.daemon.with(func(d *fakeDaemon) {
					var got []string
					if len(d.reclaimed) > 0 {
						got = d.reclaimed[len(d.reclaimed)-1]
					}
					if diff := cmp.Diff(c.want, got); diff != "" {
						t.Error(diff)
					}
				})
			})
		})
	}
}

// TestReclaimAfterRestart: a node that was deleted while the agent did not run is reclaimed, also if the first attempt fails.
func TestReclaimAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newNode("node1", "172.30.0.11", 1), newNode("node2", "172.30.0.12", 2))
		b.daemon.ipam = owners(1, 2)
		b.daemon.peers = []api.Peer{{ID: idOf(1), State: api.PeerAlive, Self: true}, {ID: idOf(2), State: api.PeerDead}}
		b.daemon.refuse = errors.New("a node does not answer")
		b.watching(t)()
		deleteNode(t, b, "node2")
		stop := b.watching(t)
		defer stop()
		time.Sleep(time.Minute)
		b.daemon.with(func(d *fakeDaemon) {
			if len(d.reclaimed) < 2 {
				t.Errorf("attempts %v", d.reclaimed)
			}
			d.refuse, d.ipam = nil, owners(1)
		})
		time.Sleep(time.Minute)
		text, err := os.ReadFile(filepath.Join(b.cfg.StateDir, nodesFile))
		if err != nil || strings.Contains(string(text), "node2") {
			t.Errorf("after it has been reclaimed: %s, %v", text, err)
		}
	})
}

func deleteNode(t *testing.T, b *bench, name string) {
	t.Helper()
	if err := b.api.CoreV1().Nodes().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

func createNode(t *testing.T, b *bench, n *corev1.Node) {
	t.Helper()
	if _, err := b.api.CoreV1().Nodes().Create(t.Context(), n, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestBridgeNetfilter: the settings are turned on, and the error is bridgenf.ErrMissing where they are missing.
func TestBridgeNetfilter(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("0\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := bridgeNetfilter(dir); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "bridge-nf-call-ip6tables")); !strings.HasPrefix(string(text), "1") {
		t.Errorf("setting %q", text)
	}
	if err := bridgeNetfilter(filepath.Join(dir, "missing")); !errors.Is(err, bridgenf.ErrMissing) {
		t.Errorf("without the module: %v", err)
	}
}

// networkUnavailable returns the status of a node's condition NetworkUnavailable, empty if it has none.
func networkUnavailable(node *corev1.Node) corev1.ConditionStatus {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable {
			return c.Status
		}
	}
	return ""
}
