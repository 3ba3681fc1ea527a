package e2e

import (
	"slices"
	"testing"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
)

// dialed returns the targets of a node.
func dialed(t *testing.T, n *cluster.Node) (list []string) {
	t.Helper()
	for _, target := range query[api.Status](t, n, "status").Targets {
		list = append(list, target.Addr)
	}
	slices.Sort(list)
	return list
}

// TestConnectAndForget: targets are added, replaced and forgotten, and a restart keeps them. Members stay members.
func TestConnectAndForget(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	a, b := nodes[0], nodes[1].Addr().String()+":6783"
	up(t, nodes[1])
	up(t, a)
	expect := func(what string, want ...string) {
		t.Helper()
		if got := dialed(t, a); !slices.Equal(got, want) {
			t.Errorf("%s: targets %q, want %q", what, got, want)
		}
	}
	do(t, a, "wait", "--for", "peers=1", "--timeout", patience.String())
	do(t, a, "connect", "192.0.2.9", "192.0.2.8")
	expect("connect", "192.0.2.8:6783", "192.0.2.9:6783")
	do(t, a, "connect", "--replace", b)
	expect("connect --replace", b)
	do(t, a, "wait", "--for", "peers=2", "--timeout", patience.String())
	do(t, a, "connect", "192.0.2.9")
	do(t, a, "forget", b)
	expect("forget", "192.0.2.9:6783")
	if out, err := a.Do(testContext(t), "forget", b); cluster.ExitCode(err) != 1 {
		t.Errorf("forget again: %v: %s", err, out)
	}
	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
	up(t, a)
	do(t, a, "wait", "--for", "peers=2", "--timeout", patience.String()) // a member of an earlier run
	expect("after a restart", "192.0.2.9:6783")
	do(t, a, "forget", "192.0.2.9")
	expect("forget of all")
}

// TestNoDiscovery: with --no-discovery a node dials only its targets, and no members of earlier runs.
func TestNoDiscovery(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	restart := func(args ...string) {
		t.Helper()
		for _, n := range nodes {
			if err := n.Stop(); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range nodes {
			up(t, n, args...)
		}
		for _, n := range nodes {
			do(t, n, "wait", "--for", "peers=1", "--timeout", patience.String())
		}
	}
	for _, n := range nodes {
		do(t, n, "forget", others(nodes, n)[0])
	}
	restart("--no-discovery")
	if out, err := nodes[0].Do(testContext(t), "wait", "--for", "peers=2", "--timeout", "3s"); cluster.ExitCode(err) != 1 {
		t.Errorf("with --no-discovery: %v, want that the other node is missing: %s", err, out)
	}
	restart()
	waitReady(t, nodes)
}
