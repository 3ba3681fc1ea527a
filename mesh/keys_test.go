package mesh

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/mesh/mismatch"
)

// testKeys returns keys by name: one character each, the preferred one first.
func testKeys(names string) []GossipKey {
	var keys []GossipKey
	for _, name := range names {
		k := GossipKey{Fingerprint: uint32(name)}
		copy(k.Key[:], strings.Repeat(string(name), len(k.Key)))
		keys = append(keys, k)
	}
	return keys
}

// startSealed starts a node with the named keys; "" means none.
func startSealed(t *testing.T, net *network, name, keys string, peers ...*node) *node {
	t.Helper()
	return startWith(t, net, name, nodeIdentity(t), func(c *Config) { c.Keys = testKeys(keys) }, peers...)
}

// startCluster starts a node for each element of keys; the later ones dial the earlier ones.
func startCluster(t *testing.T, net *network, keys ...string) []*node {
	t.Helper()
	var all []*node
	for i, k := range keys {
		all = append(all, startSealed(t, net, fmt.Sprint("n", i), k, all...))
	}
	return all
}

// sealsWith returns the name of the key with which a node seals.
func sealsWith(n *node) rune {
	u := n.keys.InUse()
	return rune(u.Own[slices.Index(u.Derived, u.Sealer)].Fingerprint)
}

// awaitFullMesh waits until every node sees every node alive.
func awaitFullMesh(t *testing.T, nodes []*node) {
	t.Helper()
	eventually(t, "every node sees every node alive", func() bool { return fullMesh(nodes) })
}

// fullMesh reports whether every node sees every node alive.
func fullMesh(nodes []*node) bool {
	for _, x := range nodes {
		for _, y := range nodes {
			if !x.sees(y, StateAlive) {
				return false
			}
		}
	}
	return true
}

// staysFullMesh waits for d, and fails when a node does not see another one alive at any moment of it.
func staysFullMesh(t *testing.T, nodes []*node, d time.Duration) {
	t.Helper()
	for range d / (100 * time.Millisecond) {
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if !fullMesh(nodes) {
			t.Fatal("a node does not see another one alive")
		}
	}
}

// permutations of three nodes.
var permutations = [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}

// TestRotationInAnyOrder adds a new secret before the old one on one node after the other, then removes the old one on one
// node after the other, in all orders: no node is lost at any moment, and at the end the old secret opens nothing.
func TestRotationInAnyOrder(t *testing.T) {
	for _, first := range permutations {
		for _, second := range permutations {
			t.Run(fmt.Sprint(first, second), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { rotate(t, first, second) })
			})
		}
	}
}

func rotate(t *testing.T, first, second []int) {
	var net network
	nodes := startCluster(t, &net, "o", "o", "o")
	awaitFullMesh(t, nodes)
	for _, i := range first {
		if err := nodes[i].SetKeys(testKeys("no")); err != nil {
			t.Fatal(err)
		}
		staysFullMesh(t, nodes, 5*time.Second)
	}
	for _, i := range second {
		if err := nodes[i].SetKeys(testKeys("n")); err != nil {
			t.Fatal(err)
		}
		staysFullMesh(t, nodes, 5*time.Second)
	}
	for _, n := range nodes {
		for _, m := range n.Members() {
			if diff := cmp.Diff([]uint32{'n'}, m.Accepts); diff != "" {
				t.Errorf("%s of %s: %s", n.cfg.Name, m.Name, diff)
			}
		}
	}
	late, stale := startSealed(t, &net, "late", "n", nodes...), startSealed(t, &net, "stale", "o", nodes...)
	awaitFullMesh(t, append(nodes, late))
	time.Sleep(time.Minute)
	if len(stale.Members()) != 1 || len(late.Members()) != 4 {
		t.Errorf("the node with the old secret knows %v", stale.Members())
	}
	stopAll(append(nodes, late, stale)...)
}

// TestJoinsByAnyCommonKey: nodes with different keys join when they have one in common.
func TestJoinsByAnyCommonKey(t *testing.T) {
	for _, tt := range [][]string{ // the last node joins
		{"o", "no"},
		{"no", "o"},
		{"no", "no", "o"},
		{"no", "on", "o"},
		{"o", "o", "no"},
		{"no", "n"},
		{"on", "n"},
		{"ba", "ba", "ca"},
		{"abc", "bcd", "cde"},
		{"abcdefgh", "hgfedcba", "h"},
	} {
		t.Run(strings.Join(tt, " "), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var net network
				nodes := startCluster(t, &net, tt...)
				awaitFullMesh(t, nodes)
				staysFullMesh(t, nodes, time.Minute)
				stopAll(nodes...)
			})
		})
	}
}

// TestJoinsWhenTheSecretComes adds the common secret to a cluster long after a node has begun to try to join it.
func TestJoinsWhenTheSecretComes(t *testing.T) {
	for _, tt := range []struct{ cluster, then, newcomer string }{
		{"b", "ba", "ca"},
		{"n", "no", "o"}, // the cluster seals with the new one until the newcomer has joined
		{"o", "no", "n"},
	} {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var net network
				passive := func(keys string) func(*Config) {
					return func(c *Config) { c.Keys, c.Discovery = testKeys(keys), false }
				}
				nodes := []*node{startWith(t, &net, "n0", nodeIdentity(t), passive(tt.cluster))}
				nodes = append(nodes, startWith(t, &net, "n1", nodeIdentity(t), passive(tt.cluster), nodes[0]))
				awaitFullMesh(t, nodes)
				x := startWith(t, &net, "x", nodeIdentity(t), passive(tt.newcomer), nodes[0])
				time.Sleep(10 * time.Minute) // its pauses are as long as they get
				for _, n := range nodes {
					if err := n.SetKeys(testKeys(tt.then)); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(2 * time.Minute)
				staysFullMesh(t, append(nodes, x), time.Minute)
				if s := x.TargetStatus()[0]; s.Err != nil {
					t.Errorf("target after that: %v", s.Err)
				}
				stopAll(append(nodes, x)...)
			})
		})
	}
}

// TestPartitionHealsOverARotation cuts a node off while the others get a new secret: it comes back with the old one.
func TestPartitionHealsOverARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		nodes := startCluster(t, &net, "o", "o", "o")
		awaitFullMesh(t, nodes)
		lost := nodes[2]
		net.setCut(lost.transport.addr, true)
		eventually(t, "the node is dead for the others", func() bool {
			return nodes[0].sees(lost, StateDead) && nodes[1].sees(lost, StateDead)
		})
		for _, n := range nodes[:2] {
			if err := n.SetKeys(testKeys("no")); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Minute)
		if got := sealsWith(nodes[0]); got != 'n' {
			t.Errorf("they seal with %c", got)
		}
		net.setCut(lost.transport.addr, false)
		time.Sleep(3 * time.Minute)
		staysFullMesh(t, nodes, time.Minute)
		stopAll(nodes...)
	})
}

// TestNewcomerSeparatesNoMembers: a node that has a secret in common with one member, and none with the other, does not
// join and does not separate the two.
func TestNewcomerSeparatesNoMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		nodes := startCluster(t, &net, "no", "o")
		awaitFullMesh(t, nodes)
		x := startSealed(t, &net, "x", "n", nodes[0])
		staysFullMesh(t, nodes, 10*time.Minute)
		if s := x.TargetStatus()[0]; !errors.Is(s.Err, mismatch.ErrSecret) {
			t.Errorf("the newcomer's target: %v, want mismatch.ErrSecret", s.Err)
		}
		stopAll(append(nodes, x)...)
	})
}

// TestNoSecretInCommon: a node without a common secret is refused, and both sides report why.
func TestNoSecretInCommon(t *testing.T) {
	for _, tt := range []struct {
		inside, outside string
		atInside        mismatch.Reason
		atOutside       mismatch.Reason
	}{
		{"a", "b", mismatch.Other, mismatch.Other},
		{"ab", "cd", mismatch.Other, mismatch.Other},
		{"a", "", mismatch.There, mismatch.Here},
		{"", "b", mismatch.Here, mismatch.There},
	} {
		t.Run(fmt.Sprintf("%q %q", tt.inside, tt.outside), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var net network
				var log lockedBuffer
				logged := func(keys string) func(*Config) {
					return func(c *Config) {
						c.Keys, c.Logger = testKeys(keys), slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
					}
				}
				in := startWith(t, &net, "in", nodeIdentity(t), logged(tt.inside))
				out := startWith(t, &net, "out", nodeIdentity(t), logged(tt.outside), in)
				time.Sleep(10 * time.Minute)

				e, ok := errors.AsType[*mismatch.Error](out.TargetStatus()[0].Err)
				if !ok || e.Reason != tt.atOutside || e.Addr != in.transport.addr || !strings.Contains(e.Error(), "--secret-file") {
					t.Errorf("outside: target %v, want reason %d", out.TargetStatus()[0].Err, tt.atOutside)
				}
				s := in.KeyMismatches()
				if len(s) != 1 || s[0].Reason != tt.atInside || s[0].Addr != out.transport.addr.Addr() {
					t.Errorf("inside: key mismatches %v, want one with reason %d", s, tt.atInside)
				}
				if len(in.Members()) != 1 || len(out.Members()) != 1 {
					t.Errorf("members %v and %v", in.Members(), out.Members())
				}
				text := log.String()
				if n := strings.Count(text, "gossip of a node refused"); n != 1 {
					t.Errorf("%d lines about it:\n%s", n, text)
				}
				for _, key := range testKeys(tt.inside + tt.outside) {
					if strings.Contains(text, string(key.Key[:4])) {
						t.Error("the log contains a key")
					}
				}
				out.stop()
				time.Sleep(5 * time.Minute)
				if s := in.KeyMismatches(); len(s) != 0 {
					t.Errorf("key mismatches %v minutes after the last", s)
				}
				stopAll(in)
			})
		})
	}
}

func TestCapabilitiesArePublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := startWith(t, &net, "a", nodeIdentity(t), func(c *Config) { c.Capabilities = 1 << 31 })
		b := startWith(t, &net, "b", nodeIdentity(t), func(*Config) {}, a)
		eventually(t, "the two nodes know each other", func() bool { return b.sees(a, StateAlive) })
		if m, _ := b.roster.lookup(a.cfg.Identity.ID); m.Capabilities != 1<<31 || len(m.Accepts) != 0 {
			t.Errorf("capabilities %x, accepts %v", m.Capabilities, m.Accepts)
		}
		stopAll(a, b)
	})
}

func TestKeysThatAreRefused(t *testing.T) {
	cfg := Config{Identity: nodeIdentity(t), Transport: (&network{}).transport(t), Advertise: unusedAddr}
	for _, keys := range []string{"abcdefghi", "aba"} {
		cfg.Keys = testKeys(keys)
		if _, err := New(cfg); !errors.Is(err, ErrKeys) {
			t.Errorf("New with keys %s: %v, want ErrKeys", keys, err)
		}
	}
	cfg.Keys = testKeys("a")
	sealed, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, keys := range []string{"", "abcdefghi", "bb"} {
		if err := sealed.SetKeys(testKeys(keys)); !errors.Is(err, ErrKeys) {
			t.Errorf("SetKeys(%s): %v, want ErrKeys", keys, err)
		}
	}
	if diff := cmp.Diff([]uint32{'a'}, sealed.keys.Fingerprints()); diff != "" {
		t.Error(diff)
	}
	cfg.Keys = nil
	plain, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := plain.SetKeys(testKeys("a")); !errors.Is(err, ErrKeys) {
		t.Errorf("SetKeys of a mesh without keys: %v, want ErrKeys", err)
	}
	text := fmt.Sprintf("%v %+v %#v %s %x", cfg, cfg, cfg.Keys, testKeys("a"), testKeys("a"))
	if containsAny(text, strings.Repeat("a", 32), strings.Repeat("61", 32), "97 97 97") {
		t.Errorf("a key is printed: %s", text)
	}
	private := fmt.Sprint(cfg.Identity.Private()) // [1 2 3 ...]
	if text := fmt.Sprintf("%v %+v %#v %d", cfg, cfg, cfg.Identity, cfg.Identity); containsAny(text, strings.Trim(private, "[]")) {
		t.Errorf("the node's private key is printed: %s", text)
	}
}

// lockedBuffer is a buffer that several goroutines write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func containsAny(text string, parts ...string) bool {
	return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(text, p) })
}
