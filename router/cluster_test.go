package router

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/internal/simnet"
	"weft/router/session"
	"weft/router/underlay"
	"weft/tap/taptest"
)

// cluster is the name of the tests' network.
const cluster = "test"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is an engine between a device and a network in memory.
type node struct {
	*Engine
	peer Peer
	dev  *taptest.Device
	conn *simnet.Conn
	log  *lines
}

// lines counts log lines of any level.
type lines struct{ atomic.Int64 }

// Write implements io.Writer; slog calls it once a line.
func (l *lines) Write(b []byte) (int, error) {
	l.Add(1)
	return len(b), nil
}

// newNode returns the nth node of a network, idle.
func newNode(t testing.TB, network *simnet.Network, n int) *node {
	t.Helper()
	return newNodeOf(t, network, n, taptest.Config{MTU: 1438})
}

// newNodeOf is newNode with another device, and secrets.
func newNodeOf(t testing.TB, network *simnet.Network, n int, cfg taptest.Config, secrets ...session.Secret) *node {
	t.Helper()
	return newNodeWith(t, network, n, cfg, Config{Secrets: secrets})
}

// newNodeWith is newNodeOf with other fields of a Config.
func newNodeWith(t testing.TB, network *simnet.Network, n int, cfg taptest.Config, with Config) *node {
	t.Helper()
	p := peerOf(n)
	conn, err := network.Listen(p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	dev := taptest.New(cfg)
	log := new(lines)
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	with.Private, with.Cluster, with.Offer = identityOf(n).private, cluster, anyCipher
	with.Device, with.Conns, with.Logger = dev, []underlay.Conn{conn}, logger
	e, err := New(with)
	if err != nil {
		t.Fatal(err)
	}
	return &node{Engine: e, peer: p, dev: dev, conn: conn, log: log}
}

// events calls the functions that a test has set.
type events struct {
	plainAgreed func(peer.ID)
	links       func(Links)
	control     func(from peer.ID, to uint8, message []byte)
	dialBack    func(to netip.AddrPort, datagram []byte)
}

// PlainAgreed implements Events.
func (e *events) PlainAgreed(id peer.ID) {
	if e.plainAgreed != nil {
		e.plainAgreed(id)
	}
}

// LinksChanged implements Events.
func (e *events) LinksChanged(l Links) {
	if e.links != nil {
		e.links(l)
	}
}

// ControlReceived implements Events.
func (e *events) ControlReceived(from peer.ID, to uint8, message []byte) {
	if e.control != nil {
		e.control(from, to, message)
	}
}

// DialBack implements Events.
func (e *events) DialBack(to netip.AddrPort, datagram []byte) {
	if e.dialBack != nil {
		e.dialBack(to, datagram)
	}
}

func addrOf(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n + 1)}), 6784)
}

// run runs nodes that are peers of each other until the test ends. It must be called in a bubble of synctest.
func run(t *testing.T, size int) (network *simnet.Network, nodes []*node) {
	t.Helper()
	return runOf(t, slices.Repeat([]taptest.Config{{MTU: 1438}}, size)...)
}

// runOf is run for a node on each of the devices.
func runOf(t *testing.T, devices ...taptest.Config) (network *simnet.Network, nodes []*node) {
	t.Helper()
	network = simnet.New(1)
	for n, device := range devices {
		nodes = append(nodes, newNodeOf(t, network, n, device))
	}
	runNodes(t, nodes)
	return network, nodes
}

// runNodes makes nodes peers of each other and runs them until the test ends.
func runNodes(t *testing.T, nodes []*node) {
	t.Helper()
	var peers []Peer
	for _, n := range nodes {
		peers = append(peers, n.peer)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	for _, n := range nodes {
		n.SetPeers(peers)
		go func() { ended <- n.Run(ctx) }()
	}
	t.Cleanup(func() {
		cancel()
		for range nodes {
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	})
}

// mac returns the nth address of the tests.
func mac(n int) ether.Addr { return ether.Addr{0x0a, 0, 0, 0, 0, byte(n)} }

// frame returns a frame of 64 bytes that contains note.
func frame(dst, src ether.Addr, note byte) []byte {
	f := make([]byte, 64)
	copy(f, dst[:])
	copy(f[6:], src[:])
	binary.BigEndian.PutUint16(f[12:], 0x88b5)
	f[14] = note
	return f
}

// deliver injects f at one node and returns the notes that every node's host has received when nothing moves any more.
func deliver(t *testing.T, nodes []*node, at int, f []byte) (got [][]byte) {
	t.Helper()
	if !nodes[at].dev.Inject(f) {
		t.Fatal("the device is full")
	}
	return awaitQuiet(nodes)
}

// awaitQuiet waits until nothing moves any more and returns the notes of the frames that every node's host has received.
func awaitQuiet(nodes []*node) (got [][]byte) {
	synctest.Wait()
	got = make([][]byte, len(nodes))
	for i, n := range nodes {
		for {
			f, ok := n.dev.TryNext()
			if !ok {
				break
			}
			got[i] = append(got[i], f.Data[14])
		}
	}
	return got
}
