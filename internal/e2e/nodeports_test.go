package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// gossipPort is the gossip port of nodes with default ports.
const gossipPort = 6783

// TestPodIsNoNode: without a secret, a program in a pod that speaks the protocol does not join by its node or by another one, at any of
// their addresses. Pods still reach the same port of other pods and of hosts that are no nodes. Another program that removes the rules
// does not open the ports for long, and "weft leave" removes them.
func TestPodIsNoNode(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b", "outside")
	outside, nodes := nodes[2], nodes[:2]
	start(t, nodes)
	do(t, nodes[0], "expose")
	do(t, nodes[1], "expose")
	intruder, other := attach(t, nodes[0], "intruder"), attach(t, nodes[0], "other")
	targets := []string{nodes[0].Addr().String(), nodes[1].Addr().String()}
	for _, n := range nodes {
		targets = append(targets, bridgeStation(t, n).IP4.String())
	}
	for _, target := range targets { // the node has it, and only pods are kept away
		if !strings.HasPrefix(target, "10.") {
			connects(t, outside.Space, netip.MustParseAddr(target), gossipPort)
		}
	}

	socket := filepath.Join(t.TempDir(), "weft.sock")
	process, err := nodes[0].Start(nettest.ProcessConfig{Name: "intruder", Argv: append([]string{
		"nsenter", "--net=" + intruder.Path(), filepath.Join(bin, "weft"), "up", "--name", "intruder", "--state-dir", t.TempDir(),
		"--socket", socket, "--http-addr", "", "--bridge", "inner", "--range", "172.31.0.0/16",
	}, targets...)})
	if err != nil {
		t.Fatal(err)
	}
	labtest.Until(t, 3*patience, func() error {
		out, err := exec.CommandContext(testContext(t), filepath.Join(bin, "weft"), "--socket", socket, "status").CombinedOutput()
		for _, target := range targets {
			if want := "Target " + target; !strings.Contains(string(out), want) {
				return errors.Join(err, fmt.Errorf("no condition %s about %s in %s", health.TargetUnreachable, target, out))
			}
		}
		return nil
	})
	for _, n := range nodes {
		if peers := query[[]api.Peer](t, n, "peers"); len(peers) != len(nodes) {
			t.Errorf("%s knows the peers %+v", n.Label(), peers)
		}
	}
	process.Kill()

	for _, at := range []struct {
		space *nettest.Space
		addr  netip.Addr
	}{{outside.Space, outside.Addr()}, {other.Space, other.addr}} {
		serve(t, at.space, at.addr)
		connects(t, intruder.Space, at.addr, gossipPort)
	}
	labtest.Run(t, nodes[0].Space, "nft", "flush", "ruleset")
	shows(t, nodes[0], "nft list table inet weft-nodes", `daddr @nodes4 meta l4proto . th dport @own`)
	shows(t, nodes[0], "nft list table inet weft-nodes", nodes[1].Addr().String())
	for _, target := range targets {
		if err := dialTCP(intruder.Space, netip.MustParseAddr(target), gossipPort); err == nil {
			t.Errorf("after the repair a pod reaches the gossip port at %s", target)
		}
	}
	do(t, nodes[0], "leave")
	labtest.Until(t, patience, func() error {
		out, err := nodes[0].Run(testContext(t), "nft", "list", "tables")
		if err == nil && strings.Contains(out, "weft-nodes") {
			err = errors.New(out)
		}
		return err
	})
}

// serve accepts connections at the gossip port of an address.
func serve(t *testing.T, s *nettest.Space, addr netip.Addr) {
	t.Helper()
	var l net.Listener
	if err := s.Do(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(addr, gossipPort).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
}

// dialTCP returns an error if nothing accepts a connection within a second.
func dialTCP(s *nettest.Space, to netip.Addr, port uint16) error {
	return s.Do(func() error {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(to.String(), strconv.Itoa(int(port))), time.Second)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

// connects waits until something accepts a connection.
func connects(t *testing.T, s *nettest.Space, to netip.Addr, port uint16) {
	t.Helper()
	labtest.Until(t, patience, func() error { return dialTCP(s, to, port) })
}
