package vxlan_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/internal/ether"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
	"weft/internal/peer"
	"weft/router/carrier"
	"weft/router/carrier/carriertest"
	"weft/router/carrier/vxlan"
	"weft/tap/taptest"
)

const (
	port     = 6785
	vni      = 0xabcdef
	mtu      = carriertest.MTU
	patience = 20 * time.Second
)

// node is a host with a device.
type node struct {
	*carriertest.Host
	dev        *vxlan.Device
	controller *carrier.Controller

	mu      sync.Mutex
	kernel  map[peer.ID]bool
	learned map[peer.ID][]ether.Addr // for ReleaseMACs
}

func (n *node) peer() carrier.Peer { return carrier.Peer{ID: n.ID, Addr: n.Addr} }

// newNode adds a host with a device that is a port of its bridge.
func newNode(t *testing.T, l *nettest.Lab, number byte, v6 bool) *node {
	t.Helper()
	n := &node{Host: carriertest.NewHost(t, l, number, v6), kernel: map[peer.ID]bool{}, learned: map[peer.ID][]ether.Addr{}}
	n.open(t)
	return n
}

// open makes the device as the daemon would.
func (n *node) open(t *testing.T) {
	t.Helper()
	err := n.Do(func() (err error) {
		n.dev, err = vxlan.Open(t.Context(), configOf(n.Host))
		return err
	})
	if err == nil {
		err = n.AddPorts(n.dev.Name())
	}
	if err != nil {
		t.Fatal(err)
	}
	dev := n.dev
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

// configOf describes the device of a host.
func configOf(h *carriertest.Host) vxlan.Config {
	return vxlan.Config{
		Name: "weftvx", Bridge: carriertest.Bridge, Tap: carriertest.Tap, Port: port, VNI: vni, MTU: mtu, Local: h.Addr, Self: h.ID,
	}
}

// run runs a Controller on the node's device until the test ends, or until the returned function is called.
func (n *node) run(t *testing.T, peers ...carrier.Peer) (stop func()) {
	t.Helper()
	controller := n.newController(t)
	controller.SetPeers(peers)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- controller.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// newController makes a Controller on the node's device.
func (n *node) newController(t *testing.T) *carrier.Controller {
	t.Helper()
	controller, err := carrier.New(carrier.ControllerConfig{Carrier: n.dev, Self: n.ID, Router: n, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	n.controller = controller
	return controller
}

func (n *node) SetKernel(id peer.ID, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kernel[id] = on
}

// MovedMACs implements carrier.Router.
func (n *node) MovedMACs(peer.ID, []ether.Addr) []ether.Addr { return nil }

// ProvePeer implements carrier.Router: userspace always reaches the peers.
func (n *node) ProvePeer(peer.ID) {}

// LastHeard implements carrier.Router.
func (n *node) LastHeard(peer.ID) time.Time { return time.Now() }

func (n *node) ReleaseMACs(id peer.ID) []ether.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	macs := n.learned[id]
	delete(n.learned, id)
	return macs
}

// carries waits until the kernel carries the other node's frames, or no longer.
func (n *node) carries(t *testing.T, other *node, want bool) {
	t.Helper()
	labtest.Until(t, patience, func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		if got := n.kernel[other.ID]; got != want {
			return fmt.Errorf("%s: kernel %v for %s, want %v; %v", n.Label(), got, other.Label(), want, n.controller.Peers())
		}
		return nil
	})
}

// collect returns the contents of the frames that arrive, up to and including the one with the content last.
func collect(t *testing.T, s *taptest.Socket, last string) (contents []string) {
	t.Helper()
	for {
		contents = append(contents, carriertest.NextFrame(t, s))
		if contents[len(contents)-1] == last {
			return contents
		}
	}
}

func TestCarries(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "IPv4", true: "IPv6"}[v6], func(t *testing.T) {
			l := labtest.New(t, nettest.Config{})
			var nodes []*node
			var peers []carrier.Peer
			for i := range byte(3) {
				nodes = append(nodes, newNode(t, l, i+1, v6))
				peers = append(peers, nodes[i].peer())
			}
			var pods []*taptest.Socket
			var macs []ether.Addr
			for _, n := range nodes {
				pods = append(pods, carriertest.Socket(t, n.Pod.Space, "eth0"))
				macs = append(macs, n.PodMAC)
				n.run(t, peers...)
			}
			for _, n := range nodes {
				for _, other := range nodes {
					if other != n {
						n.carries(t, other, true)
					}
				}
			}
			// A broadcast, a frame to an unknown address, and an end mark: each arrives once at every other node.
			for _, f := range [][]byte{
				carriertest.Frame(ether.Broadcast, macs[0], "all"), carriertest.Frame(ether.Addr{2, 7}, macs[0], "unknown"),
				carriertest.Frame(ether.Broadcast, macs[0], "end"),
			} {
				if err := pods[0].Send(f); err != nil {
					t.Fatal(err)
				}
			}
			for i := 1; i < 3; i++ {
				if got := fmt.Sprint(collect(t, pods[i], "end")); got != "[all unknown end]" {
					t.Errorf("pod %d got %s", i+1, got)
				}
			}
			labtest.Run(t, nodes[0].Pod.Space, "ping", "-c2", "-i0.2", "-W2", "-M", "do", "-s", fmt.Sprint(mtu-28), nodes[1].IP)
			entries, err := nodes[0].dev.Entries()
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, e := range entries {
				found = found || e.MAC == macs[1] && e.Peer == nodes[1].ID && e.Addr == nodes[1].Addr
			}
			if !found {
				t.Errorf("the second pod is not in %+v", entries)
			}
			// As soon as the address is known, no other node gets its frames.
			for _, f := range [][]byte{carriertest.Frame(macs[1], macs[0], "one"), carriertest.Frame(ether.Broadcast, macs[0], "end")} {
				if err := pods[0].Send(f); err != nil {
					t.Fatal(err)
				}
			}
			for i, want := range map[int]string{1: "[one end]", 2: "[end]"} {
				if got := fmt.Sprint(collect(t, pods[i], "end")); got != want {
					t.Errorf("pod %d got %s, want %s", i+1, got, want)
				}
			}
		})
	}
}

// TestMovedAddress: an address that the bridge sees at another port is not among those of the device any more.
func TestMovedAddress(t *testing.T) {
	l := labtest.New(t, nettest.Config{})
	a, b := newNode(t, l, 1, false), newNode(t, l, 2, false)
	a.run(t, b.peer())
	b.run(t, a.peer())
	a.carries(t, b, true)
	b.carries(t, a, true)
	far, near := carriertest.Socket(t, a.Pod.Space, "eth0"), carriertest.Socket(t, b.Pod.Space, "eth0")
	moving := ether.Addr{2, 0x77}
	for _, step := range []struct {
		from, to *taptest.Socket
		want     bool // whether the address is behind a
	}{{far, near, true}, {near, far, false}, {far, near, true}} {
		if err := step.from.Send(carriertest.Frame(ether.Broadcast, moving, "moved")); err != nil {
			t.Fatal(err)
		}
		collect(t, step.to, "moved")
		entries, err := b.dev.Entries()
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.ContainsFunc(entries, func(e vxlan.Entry) bool { return e.MAC == moving }); got != step.want {
			t.Errorf("the address is among those of the device: %v, want %v; %+v", got, step.want, entries)
		}
	}
}

// TestUnknownSenders: frames from an address of no peer, and those of pods, are dropped; and a flushed filter is
// restored.
func TestUnknownSenders(t *testing.T) {
	l := labtest.New(t, nettest.Config{})
	a, b := newNode(t, l, 1, false), newNode(t, l, 2, false)
	pod := carriertest.Socket(t, b.Pod.Space, "eth0")
	send := func(from *nettest.Space, content string) {
		t.Helper()
		sendTo(t, from, netip.Addr{}, b.Addr, encapsulated(ether.Broadcast, ether.Addr{2, 0, 0, 0, 0, 9}, content))
	}
	drops := func(counter string, least uint64) {
		t.Helper()
		labtest.Until(t, patience, func() error {
			counts, err := b.dev.FilterDrops(t.Context())
			if err == nil && counts[counter] < least {
				err = fmt.Errorf("%s dropped: %d, want %d", counter, counts[counter], least)
			}
			return err
		})
	}
	send(a.Space, "before")
	drops("unknown", 1)
	if _, err := b.dev.SetPeers(t.Context(), []carrier.Peer{a.peer()}); err != nil {
		t.Fatal(err)
	}
	carriertest.IP(t, b.Pod.Space, "route add default via 10.32.1.2")
	send(b.Pod.Space, "pod")
	drops("pods", 1)
	send(a.Space, "known")
	labtest.Run(t, b.Space, "nft", "flush", "ruleset")
	if err := b.dev.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	send(l.Switch(), "no peer")
	drops("unknown", 1)
	send(a.Space, "end")
	if got := fmt.Sprint(collect(t, pod, "end")); got != "[known end]" {
		t.Errorf("the pod got %s", got)
	}
	// Masqueraded by the other node, a pod's datagrams would have the address of a peer.
	if _, err := a.dev.SetPeers(t.Context(), []carrier.Peer{b.peer()}); err != nil {
		t.Fatal(err)
	}
	carriertest.IP(t, a.Pod.Space, "route add default via 10.32.1.1")
	labtest.Run(t, a.Space, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	send(a.Pod.Space, "masqueraded")
	labtest.Until(t, patience, func() error {
		counts, err := a.dev.FilterDrops(t.Context())
		if err == nil && counts["pods"] == 0 {
			err = errors.New("not dropped on the way out")
		}
		return err
	})
}

// TestForgottenBehindTheTAP: frames to an address that the bridge has learned at the TAP, but the router has forgotten,
// are flooded again as soon as the kernel carries a peer, as the address may be behind that peer.
func TestForgottenBehindTheTAP(t *testing.T) {
	l := labtest.New(t, nettest.Config{})
	a, b := newNode(t, l, 1, false), newNode(t, l, 2, false)
	pods := []*taptest.Socket{carriertest.Socket(t, a.Pod.Space, "eth0"), carriertest.Socket(t, b.Pod.Space, "eth0")}
	macs := []ether.Addr{a.PodMAC, b.PodMAC}
	labtest.Run(t, a.Space, "bridge", "fdb", "replace", macs[1].String(), "dev", "weft0", "master", "dynamic")
	for _, n := range []*node{a, b} {
		n.run(t, a.peer(), b.peer())
	}
	a.carries(t, b, true)
	b.carries(t, a, true)
	for _, f := range [][]byte{carriertest.Frame(macs[1], macs[0], "one"), carriertest.Frame(ether.Broadcast, macs[0], "end")} {
		if err := pods[0].Send(f); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(collect(t, pods[1], "end")); got != "[one end]" {
		t.Errorf("the pod got %s", got)
	}
}

// TestPeerIsLeftForGood: a removed peer that does not know it yet still sends through the kernel. This node learns no
// addresses from its frames, and so sends nothing to it through the kernel.
func TestPeerIsLeftForGood(t *testing.T) {
	a, b, _ := two(t)
	from, to := a.PodMAC, b.PodMAC
	sender, stop, done := carriertest.Socket(t, b.Pod.Space, "eth0"), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		each := time.NewTicker(time.Millisecond)
		defer each.Stop()
		for {
			select {
			case <-stop:
				return
			case <-each.C:
				_ = sender.Send(carriertest.Frame(from, to, "x"))
			}
		}
	}()
	labtest.Until(t, patience, func() error {
		if len(a.behind(t, to)) == 0 {
			return errors.New("nothing has come yet")
		}
		return nil
	})
	a.controller.SetPeers(nil)
	labtest.Until(t, patience, func() error {
		counts, err := a.dev.FilterDrops(t.Context())
		if err == nil && counts["unknown"] < 3 {
			err = errors.New("nothing is kept out yet")
		}
		return err
	})
	for _, line := range a.behind(t, to) {
		t.Errorf("still known: %s", line)
	}
	close(stop)
	<-done
}

// TestRemoveFrom: a device of another run with another port is removed with its filter; devices that weft did not make
// stay.
func TestRemoveFrom(t *testing.T) {
	l := labtest.New(t, nettest.Config{})
	n := newNode(t, l, 1, false)
	carriertest.IP(t, n.Space, "link add foreign type vxlan id 7 dstport 4789 nolearning")
	carriertest.IP(t, n.Space, "link set foreign master weave")
	if err := n.Do(func() error { return vxlan.RemoveFrom(t.Context(), "weave", "weftvx") }); err != nil {
		t.Fatal(err)
	}
	if got := carriertest.IP(t, n.Space, "-o link show type vxlan"); !strings.Contains(got, "weftvx") {
		t.Errorf("the excepted device is gone: %s", got)
	}
	if err := n.Do(func() error { return vxlan.RemoveFrom(t.Context(), "weave", "") }); err != nil {
		t.Fatal(err)
	}
	if got := carriertest.IP(t, n.Space, "-o link show type vxlan"); strings.Contains(got, "weftvx") || !strings.Contains(got, "foreign") {
		t.Errorf("VXLAN devices: %s", got)
	}
	if got := labtest.Run(t, n.Space, "nft", "list", "tables"); strings.Contains(got, "weftvx") {
		t.Errorf("tables: %s", got)
	}
	if err := n.Do(func() error { return vxlan.RemoveFrom(t.Context(), "nobridge", "") }); err != nil {
		t.Error(err)
	}
}
