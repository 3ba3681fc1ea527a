package vxlan_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/internal/ether"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
	"weft/internal/peer"
	"weft/router/vxlan"
	"weft/tap/bridge"
	"weft/tap/taptest"
)

const (
	port     = 6785
	vni      = 0xabcdef
	mtu      = 1422
	patience = 20 * time.Second
)

// node is a host of the lab with the overlay's bridge, a pod on it, a veth pair in the role of the TAP, and the device.
type node struct {
	*nettest.Host
	id         peer.ID
	addr       netip.Addr
	pod        *nettest.Pod
	ip         string
	dev        *vxlan.Device
	controller *vxlan.Controller

	mu      sync.Mutex
	kernel  map[peer.ID]bool
	learned map[peer.ID][]ether.Addr // for ReleaseMACs
}

func (n *node) peer() vxlan.Peer { return vxlan.Peer{ID: n.id, Addr: n.addr} }

// newNode adds a host with a device that is a port of its bridge.
func newNode(t *testing.T, l *nettest.Lab, number byte, v6 bool) *node {
	t.Helper()
	h := labtest.AddHost(t, l, fmt.Sprintf("n%d", number))
	n := &node{Host: h, id: peer.ID{number, number}, addr: h.Addr(), ip: fmt.Sprintf("10.32.0.%d", number),
		kernel: map[peer.ID]bool{}, learned: map[peer.ID][]ether.Addr{}}
	if v6 {
		n.addr = h.Addr6()
	}
	n.pod = labtest.AddPod(t, h, "pod")
	ip(t, h.Space, "link add weft0 type veth peer name tap")
	n.open(t)
	ip(t, h.Space, "link set tap up")
	ip(t, h.Space, "addr add 10.32.1."+fmt.Sprint(number)+"/12 dev weave")
	ip(t, h.Space, "link add pod mtu 1422 master weave type veth peer name eth0 mtu 1422 netns "+n.pod.Name())
	ip(t, h.Space, "link set pod up")
	ip(t, n.pod.Space, "addr add "+n.ip+"/12 dev eth0")
	ip(t, n.pod.Space, "link set eth0 up")
	return n
}

// open makes bridge and device as the daemon would.
func (n *node) open(t *testing.T) {
	t.Helper()
	err := n.Do(func() error {
		br, err := bridge.Ensure(bridge.Config{Name: "weave", MTU: mtu})
		if err != nil {
			return err
		}
		defer br.Close()
		n.dev, err = vxlan.Open(t.Context(), n.config())
		if err != nil {
			return err
		}
		return errors.Join(br.AddPort("weft0"), br.AddPort(n.dev.Name()))
	})
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

func (n *node) config() vxlan.Config {
	return vxlan.Config{Name: "weftvx", Bridge: "weave", Tap: "weft0", Port: port, VNI: vni, MTU: mtu, Local: n.addr, Self: n.id}
}

// run runs a Controller on the node's device until the test ends, or until the returned function is called.
func (n *node) run(t *testing.T, peers ...vxlan.Peer) (stop func()) {
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
func (n *node) newController(t *testing.T) *vxlan.Controller {
	t.Helper()
	controller, err := vxlan.New(vxlan.ControllerConfig{Device: n.dev, Self: n.id, Router: n, Logger: slog.New(slog.DiscardHandler)})
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

// ProvePeer implements vxlan.Router: userspace always reaches the peers.
func (n *node) ProvePeer(peer.ID) {}

// LastHeard implements vxlan.Router.
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
		if got := n.kernel[other.id]; got != want {
			return fmt.Errorf("%s: kernel %v for %s, want %v; %v", n.Label(), got, other.Label(), want, n.controller.Peers())
		}
		return nil
	})
}

func ip(t *testing.T, s *nettest.Space, line string) string {
	t.Helper()
	return labtest.Run(t, s, append([]string{"ip"}, strings.Fields(line)...)...)
}

// socket opens a packet socket on an interface of a namespace.
func socket(t *testing.T, s *nettest.Space, ifname string) (sock *taptest.Socket) {
	t.Helper()
	if err := s.Do(func() error { sock = taptest.NewSocket(t, ifname); return nil }); err != nil {
		t.Fatal(err)
	}
	return sock
}

// frame returns an Ethernet frame with an experimental type other than that of probes.
func frame(dst, src ether.Addr, content string) []byte {
	return append(append(append(dst[:], src[:]...), 0x88, 0xb6), content+strings.Repeat(".", 60)...)
}

func mac(t *testing.T, s *nettest.Space, ifname string) ether.Addr {
	t.Helper()
	fields := strings.Fields(ip(t, s, "-o link show "+ifname))
	for i, f := range fields {
		if f == "link/ether" {
			m, err := ether.ParseAddr(fields[i+1])
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
	}
	t.Fatalf("no address in %q", fields)
	return ether.Addr{}
}

// collect returns the contents of the frames that arrive, up to and including the one with the content last.
func collect(t *testing.T, s *taptest.Socket, last string) (contents []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		f, err := s.Receive(ctx)
		if err != nil {
			t.Fatalf("waiting for %s after %q: %v", last, contents, err)
		}
		if ether.Type(f) == 0x88b5 {
			t.Errorf("a pod has seen a probe: %x", f)
		}
		if ether.Type(f) != 0x88b6 {
			continue
		}
		content := strings.TrimRight(string(f[ether.HeaderLen:]), ".")
		contents = append(contents, content)
		if content == last {
			return contents
		}
	}
}

func TestCarries(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "IPv4", true: "IPv6"}[v6], func(t *testing.T) {
			l := labtest.New(t, nettest.Config{})
			var nodes []*node
			var peers []vxlan.Peer
			for i := range byte(3) {
				nodes = append(nodes, newNode(t, l, i+1, v6))
				peers = append(peers, nodes[i].peer())
			}
			var pods []*taptest.Socket
			var macs []ether.Addr
			for _, n := range nodes {
				pods = append(pods, socket(t, n.pod.Space, "eth0"))
				macs = append(macs, mac(t, n.pod.Space, "eth0"))
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
				frame(ether.Broadcast, macs[0], "all"), frame(ether.Addr{2, 7}, macs[0], "unknown"), frame(ether.Broadcast, macs[0], "end"),
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
			labtest.Run(t, nodes[0].pod.Space, "ping", "-c2", "-i0.2", "-W2", "-M", "do", "-s", fmt.Sprint(mtu-28), nodes[1].ip)
			entries, err := nodes[0].dev.Entries()
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, e := range entries {
				found = found || e.MAC == macs[1] && e.Peer == nodes[1].id && e.Addr == nodes[1].addr
			}
			if !found {
				t.Errorf("the second pod is not in %+v", entries)
			}
			// As soon as the address is known, no other node gets its frames.
			for _, f := range [][]byte{frame(macs[1], macs[0], "one"), frame(ether.Broadcast, macs[0], "end")} {
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

// TestUnknownSenders: frames from an address of no peer, and those of pods, are dropped; and a flushed filter is
// restored.
func TestUnknownSenders(t *testing.T) {
	l := labtest.New(t, nettest.Config{})
	a, b := newNode(t, l, 1, false), newNode(t, l, 2, false)
	pod := socket(t, b.pod.Space, "eth0")
	send := func(from *nettest.Space, content string) {
		t.Helper()
		sendTo(t, from, netip.Addr{}, b.addr, encapsulated(ether.Broadcast, ether.Addr{2, 0, 0, 0, 0, 9}, content))
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
	if _, err := b.dev.SetPeers(t.Context(), []vxlan.Peer{a.peer()}); err != nil {
		t.Fatal(err)
	}
	ip(t, b.pod.Space, "route add default via 10.32.1.2")
	send(b.pod.Space, "pod")
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
	if _, err := a.dev.SetPeers(t.Context(), []vxlan.Peer{b.peer()}); err != nil {
		t.Fatal(err)
	}
	ip(t, a.pod.Space, "route add default via 10.32.1.1")
	labtest.Run(t, a.Space, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	send(a.pod.Space, "masqueraded")
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
	pods := []*taptest.Socket{socket(t, a.pod.Space, "eth0"), socket(t, b.pod.Space, "eth0")}
	macs := []ether.Addr{mac(t, a.pod.Space, "eth0"), mac(t, b.pod.Space, "eth0")}
	labtest.Run(t, a.Space, "bridge", "fdb", "replace", macs[1].String(), "dev", "weft0", "master", "dynamic")
	for _, n := range []*node{a, b} {
		n.run(t, a.peer(), b.peer())
	}
	a.carries(t, b, true)
	b.carries(t, a, true)
	for _, f := range [][]byte{frame(macs[1], macs[0], "one"), frame(ether.Broadcast, macs[0], "end")} {
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
	from, to := mac(t, a.pod.Space, "eth0"), mac(t, b.pod.Space, "eth0")
	sender, stop, done := socket(t, b.pod.Space, "eth0"), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		each := time.NewTicker(time.Millisecond)
		defer each.Stop()
		for {
			select {
			case <-stop:
				return
			case <-each.C:
				_ = sender.Send(frame(from, to, "x"))
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
	ip(t, n.Space, "link add foreign type vxlan id 7 dstport 4789 nolearning")
	ip(t, n.Space, "link set foreign master weave")
	if err := n.Do(func() error { return vxlan.RemoveFrom(t.Context(), "weave", "weftvx") }); err != nil {
		t.Fatal(err)
	}
	if got := ip(t, n.Space, "-o link show type vxlan"); !strings.Contains(got, "weftvx") {
		t.Errorf("the excepted device is gone: %s", got)
	}
	if err := n.Do(func() error { return vxlan.RemoveFrom(t.Context(), "weave", "") }); err != nil {
		t.Fatal(err)
	}
	if got := ip(t, n.Space, "-o link show type vxlan"); strings.Contains(got, "weftvx") || !strings.Contains(got, "foreign") {
		t.Errorf("VXLAN devices: %s", got)
	}
	if got := labtest.Run(t, n.Space, "nft", "list", "tables"); strings.Contains(got, "weftvx") {
		t.Errorf("tables: %s", got)
	}
	if err := n.Do(func() error { return vxlan.RemoveFrom(t.Context(), "nobridge", "") }); err != nil {
		t.Error(err)
	}
}
