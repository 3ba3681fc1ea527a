package e2e

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// TestReplayHistory: an attacker has captured everything that the nodes of a network have sent each other, gossip and frames, through
// restarts, a rotation of the secret and a reclaim, and sends all of it to every node: datagrams with its own source address and with
// their original one, streams in connections of its own. Nothing changes: members, addresses, names and daemons stay as they are, and
// traffic is not disturbed.
//
// The variable WEFT_REPLAY of the environment is the time for which the network is captured; without it, the history happens once.
func TestReplayHistory(t *testing.T) {
	t.Parallel()
	h := newHistory(t)
	end := time.Now()
	if text := os.Getenv("WEFT_REPLAY"); text != "" {
		duration, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		end = end.Add(duration)
	}
	for rounds := 0; rounds == 0 || time.Now().Before(end); rounds++ {
		h.round(t)
		h.record(t)
	}
	before := h.state(t)
	ping := h.pods[0].pinging(t, h.pods[1].addr)
	ping.waitReplies(t, 10)
	h.replay(t)
	ping.waitReplies(t, 20)
	ping.steady(t)
	h.send(t)
	for _, s := range h.traffic {
		s.once(t)
	}
	labtest.Until(t, patience, func() error {
		if after := h.state(t); after != before {
			return fmt.Errorf("the network has changed from\n%s\nto\n%s", before, after)
		}
		return nil
	})
}

// history is a network, with all traffic captured.
type history struct {
	nodes    []*cluster.Node // the last one dies and comes back
	pods     []*pod
	traffic  []*numbers
	captures []*capture
	attacker *nettest.Host
	secrets  []string // the accepted ones, the preferred one first
	rounds   int

	datagrams map[string]datagram // all different ones so far
	streams   map[string]bool
}

func newHistory(t *testing.T) *history {
	t.Helper()
	h := &history{
		nodes: newNodes(t, "a", "b", "c", "d"), secrets: []string{newSecret(t)},
		datagrams: map[string]datagram{}, streams: map[string]bool{},
	}
	h.attacker = labtest.AddHost(t, h.nodes[0].Lab(), "attacker")
	disableBatching(t, h.nodes)
	h.captures = captureUnderlay(t, h.nodes...)
	startSealed(t, h.nodes, h.secrets[0])
	h.pods = reachingPods(t, h.nodes)
	h.traffic = []*numbers{newNumbers(t, h.pods[0], h.pods[1]), newNumbers(t, h.pods[1], h.pods[0])}
	return h
}

// round lets happen what changes a network: traffic, names, a rotation, a restart, the death of a node, a reclaim of its addresses,
// and its return.
func (h *history) round(t *testing.T) {
	t.Helper()
	h.rounds++
	a, b, c, d := h.nodes[0], h.nodes[1], h.nodes[2], h.nodes[3]
	h.send(t)
	name := fmt.Sprintf("name%d", h.rounds)
	do(t, a, "dns", "add", name, h.pods[0].addr.String())
	labtest.Until(t, patience, func() error { _, err := c.Do(testContext(t), "dns", "lookup", name); return err })
	do(t, a, "dns", "remove", name)

	// Both secrets stay accepted, so that what was sealed with the older one can still be opened.
	h.secrets = append([]string{newSecret(t)}, h.secrets[0])
	for _, n := range h.nodes {
		writeSecret(t, n, h.secrets...)
		do(t, n, "reload")
	}
	waitReady(t, h.nodes)

	for _, n := range []*cluster.Node{b, c} {
		if err := n.Stop(); err != nil {
			t.Fatal(err)
		}
		upSealed(t, h.nodes, n)
		waitReady(t, h.nodes)
	}

	d.Process().Kill()
	for _, n := range []*cluster.Node{a, b, c} {
		waitState(t, n, d.Label(), api.PeerDead)
	}
	do(t, a, "reclaim", d.Label())
	upSealed(t, h.nodes, d)
	waitReady(t, h.nodes)
	labtest.Until(t, patience, func() error { return sameOwners(t, h.nodes, len(h.nodes)) })
	h.send(t)
}

// send sends traffic in both directions, once the pods reach each other.
func (h *history) send(t *testing.T) {
	t.Helper()
	for i, s := range h.traffic {
		h.pods[i].reaches(t, h.pods[1-i].addr)
		s.send(t, 100)
	}
}

// record keeps what was captured since the last call.
func (h *history) record(t *testing.T) {
	t.Helper()
	var all []packet
	for _, p := range allPackets(t, h.captures) {
		if !p.outgoing { // the capture of the other host has outgoing packets
			all = append(all, p)
		}
	}
	for _, port := range []uint16{gossipPort, dataPort} {
		for _, d := range datagrams(all, port) {
			h.datagrams[string(d.payload)] = d
		}
	}
	for _, s := range tcpStreams(all, gossipPort) {
		h.streams[string(s)] = true
	}
	t.Logf("round %d: %d datagrams and %d streams so far", h.rounds, len(h.datagrams), len(h.streams))
}

// replay sends everything to every node.
func (h *history) replay(t *testing.T) {
	t.Helper()
	if len(h.datagrams) < 1000 || len(h.streams) < 20 {
		t.Fatalf("%d datagrams and %d streams were captured; want a history", len(h.datagrams), len(h.streams))
	}
	forge := newForger(t, h.attacker)
	for _, d := range h.datagrams {
		for _, n := range h.nodes {
			to := netip.AddrPortFrom(n.Addr(), d.to.Port())
			for _, from := range []netip.AddrPort{d.from, netip.AddrPortFrom(h.attacker.Addr(), d.from.Port())} {
				forge.send(t, from, to, d.payload)
			}
		}
	}
	for _, n := range h.nodes {
		waitEmpty(t, n)
	}
	var g errgroup.Group
	g.SetLimit(4) // nodes end the oldest of more unauthenticated streams of one address
	for s := range h.streams {
		for _, n := range h.nodes {
			g.Go(func() error { return h.replayStream(n, s) })
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// replayStream sends the bytes of a stream to a node, and waits until the node ends the connection.
func (h *history) replayStream(n *cluster.Node, stream string) error {
	var conn net.Conn
	if err := h.attacker.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", netip.AddrPortFrom(n.Addr(), gossipPort).String(), patience)
		return err
	}); err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, stream); err != nil {
		return nil // the node has closed the connection already
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
	_, _ = io.Copy(io.Discard, conn) // ends with the connection, whatever its end
	return nil
}

// isAlarm reports whether a condition is about the attack itself: the attacker's host sends gossip that was sealed with secrets that
// are replaced, and many handshakes that no secret opens.
func (h *history) isAlarm(c api.Condition) bool {
	switch health.Code(c.Code) {
	case health.KeyMismatch:
		return strings.Contains(c.Text, h.attacker.Addr().String())
	case health.UnauthenticatedHandshakes:
		return true
	default:
		return false
	}
}

// state describes what every node knows about the network, without what traffic changes.
func (h *history) state(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, n := range h.nodes {
		fmt.Fprintf(&b, "%s:\n", n.Label())
		peers := query[[]api.Peer](t, n, "peers")
		slices.SortFunc(peers, func(x, y api.Peer) int { return cmp.Compare(x.Name, y.Name) })
		for _, p := range peers {
			fmt.Fprintf(&b, "  peer %s %s %s %s\n", p.ID, p.Name, p.Addr, p.State)
		}
		for _, o := range query[api.IPAM](t, n, "ipam").Ranges[0].Owners {
			fmt.Fprintf(&b, "  owner %s of %d\n", o.ID, o.Addresses)
		}
		for _, l := range query[[]api.Lease](t, n, "ip", "list") {
			fmt.Fprintf(&b, "  lease %s %s\n", l.IP, l.Owner)
		}
		for _, name := range query[[]api.Name](t, n, "dns", "list") {
			fmt.Fprintf(&b, "  name %s %s\n", name.Name, name.IP)
		}
		for _, c := range query[api.Status](t, n, "status").Conditions {
			if h.isAlarm(c) {
				continue
			}
			fmt.Fprintf(&b, "  condition %s\n", c.Code)
		}
	}
	return b.String()
}
