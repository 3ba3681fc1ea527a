package vxlan_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"weft/internal/ether"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
	"weft/router/carrier"
	"weft/router/carrier/carriertest"
	"weft/router/carrier/vxlan"
	"weft/tap/bridge"
)

// two returns two nodes that carry each other in the kernel.
func two(t *testing.T) (a, b *node, stopB func()) {
	t.Helper()
	l := labtest.New(t, nettest.Config{})
	a, b = newNode(t, l, 1, false), newNode(t, l, 2, false)
	a.run(t, b.peer())
	stopB = b.run(t, a.peer())
	a.carries(t, b, true)
	b.carries(t, a, true)
	labtest.Run(t, a.Pod.Space, "ping", "-c1", "-W2", b.IP)
	return a, b, stopB
}

// behind returns the lines of "bridge fdb" for an address on the node.
func (n *node) behind(t *testing.T, m ether.Addr) (lines []string) {
	t.Helper()
	for line := range strings.Lines(labtest.Run(t, n.Space, "bridge", "fdb", "show")) {
		if strings.HasPrefix(line, m.String()+" ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// TestMovedMACs: an address that Carry has put behind a peer, or that the device has learned there, is flooded after Forget; what the
// bridge knows better is not changed by either.
func TestMovedMACs(t *testing.T) {
	a, b, _ := two(t)
	moved, learned := ether.Addr{2, 1}, b.PodMAC
	tap, pod := ether.Addr{2, 2}, a.PodMAC
	carriertest.IP(t, a.Space, "link set weft0 up")
	labtest.Run(t, a.Space, "bridge", "fdb", "replace", tap.String(), "dev", "weft0", "master", "dynamic")
	if err := a.dev.Carry(b.ID, true, []ether.Addr{moved, tap, pod}); err != nil {
		t.Fatal(err)
	}
	for _, mac := range []ether.Addr{moved, tap} {
		if lines := a.behind(t, mac); !strings.Contains(strings.Join(lines, "\n"), "weftvx dst "+b.Addr.String()) {
			t.Errorf("%s is at %q", mac, lines)
		}
	}
	if lines := a.behind(t, tap); strings.Contains(strings.Join(lines, "\n"), "weft0") {
		t.Errorf("%s is still at %q", tap, lines)
	}
	if lines := a.behind(t, pod); len(lines) != 1 || !strings.Contains(lines[0], "dev pod ") {
		t.Errorf("the pod is at %q", lines)
	}
	if err := a.dev.Forget([]ether.Addr{moved, tap, learned, pod, {2, 9}}); err != nil {
		t.Fatal(err)
	}
	for _, mac := range []ether.Addr{moved, tap, learned} {
		if lines := a.behind(t, mac); len(lines) > 0 {
			t.Errorf("%s is still at %q", mac, lines)
		}
	}
	if lines := a.behind(t, pod); len(lines) != 1 {
		t.Errorf("the pod is at %q", lines)
	}
}

// forgotten waits until no entry on the node leads to m through the device.
func (n *node) forgotten(t *testing.T, m ether.Addr) {
	t.Helper()
	labtest.Until(t, patience, func() error {
		for _, line := range n.behind(t, m) {
			if strings.Contains(line, "weftvx") {
				return errors.New(line)
			}
		}
		return nil
	})
}

// TestBlocked: both nodes leave a path that is cut in one direction, and remove its entries; they use it again when it
// works.
func TestBlocked(t *testing.T) {
	a, b, _ := two(t)
	pods := map[*node]ether.Addr{a: a.PodMAC, b: b.PodMAC}
	if lines := a.behind(t, pods[b]); len(lines) != 2 {
		t.Fatalf("entries of the bridge and of the device: %q", lines)
	}
	labtest.Run(t, b.Space, "nft", fmt.Sprintf("add table inet cut; add chain inet cut in { type filter hook input priority -10; };"+
		"add rule inet cut in udp dport %d drop", port))
	a.carries(t, b, false)
	b.carries(t, a, false)
	a.forgotten(t, pods[b])
	b.forgotten(t, pods[a])
	if out := labtest.Run(t, a.Space, "bridge", "fdb", "show", "dev", "weftvx"); strings.Contains(out, "00:00:00:00:00:00") {
		t.Errorf("a flood entry stays:\n%s", out)
	}
	labtest.Run(t, b.Space, "nft", "delete table inet cut")
	a.carries(t, b, true)
	b.carries(t, a, true)
	labtest.Run(t, a.Pod.Space, "ping", "-c1", "-W2", b.IP)
}

// TestLeaves: a node that stops informs its peers, and leaves nothing behind.
func TestLeaves(t *testing.T) {
	a, b, stopB := two(t)
	stopB()
	a.carries(t, b, false)
	if out := carriertest.IP(t, b.Space, "link show type vxlan"); out != "" {
		t.Errorf("left behind:\n%s", out)
	}
	if out := labtest.Run(t, b.Space, "nft", "list", "ruleset"); out != "" {
		t.Errorf("left behind:\n%s", out)
	}
	if _, err := b.dev.Entries(); err == nil {
		t.Error("Entries of a closed device")
	}
}

// TestPeerRemoved: a removed peer is not carried any more, and its frames are dropped.
func TestPeerRemoved(t *testing.T) {
	a, b, _ := two(t)
	a.controller.SetPeers(nil)
	a.carries(t, b, false)
	b.carries(t, a, false)
	a.forgotten(t, b.PodMAC)
	labtest.Until(t, patience, func() error {
		if set := labtest.Run(t, a.Space, "nft", "list", "set", "inet", "weft-weftvx", "peers4"); strings.Contains(set, "elements") {
			return errors.New(set)
		}
		return nil
	})
	a.controller.SetPeers([]carrier.Peer{b.peer()})
	a.carries(t, b, true)
	b.carries(t, a, true)
}

// TestOffTheBridge: a device that was removed from the bridge carries no peer, though probes still pass.
func TestOffTheBridge(t *testing.T) {
	a, b, _ := two(t)
	carriertest.IP(t, a.Space, "link set weftvx nomaster")
	a.carries(t, b, false)
	err := a.Do(func() error {
		br, err := bridge.Ensure(bridge.Config{Name: "weave", MTU: mtu})
		if err != nil {
			return err
		}
		defer br.Close()
		return br.AddPort("weftvx")
	})
	if err != nil {
		t.Fatal(err)
	}
	a.carries(t, b, true)
}

// TestDeleted: Run returns that the device is gone, and no peer is carried any more.
func TestDeleted(t *testing.T) {
	l := labtest.New(t, nettest.Config{})
	a, b := newNode(t, l, 1, false), newNode(t, l, 2, false)
	b.run(t, a.peer())
	controller := a.newController(t)
	controller.SetPeers([]carrier.Peer{b.peer()})
	ended := make(chan error, 1)
	go func() { ended <- controller.Run(t.Context()) }()
	a.carries(t, b, true)
	carriertest.IP(t, a.Space, "link del weftvx")
	if err := <-ended; !errors.Is(err, carrier.ErrGone) {
		t.Errorf("Run: %v", err)
	}
	a.carries(t, b, false)
	b.carries(t, a, false)
}

// TestMoves: addresses that the bridge learned at the TAP move to the device with their peer, also if the other side
// still used userspace for a while. An address that the bridge has seen at a pod since stays there.
func TestMoves(t *testing.T) {
	l := labtest.New(t, nettest.Config{})
	a, b := newNode(t, l, 1, false), newNode(t, l, 2, false)
	far, late, local, silent := ether.Addr{2, 1}, ether.Addr{2, 2}, ether.Addr{2, 3}, ether.Addr{2, 4}
	tap, pod := carriertest.Socket(t, a.Space, "tap"), carriertest.Socket(t, a.Pod.Space, "eth0")
	for _, err := range []error{
		tap.Send(carriertest.Frame(ether.Broadcast, far, "")), tap.Send(carriertest.Frame(ether.Broadcast, local, "")),
		pod.Send(carriertest.Frame(ether.Broadcast, local, "")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	say := func(macs ...ether.Addr) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.learned[b.ID] = macs
	}
	say(far, local, silent, vxlan.ProbeMAC(b.ID))
	a.run(t, b.peer())
	b.run(t, a.peer())
	a.carries(t, b, true)
	expect := func(m ether.Addr, want ...string) {
		t.Helper()
		labtest.Until(t, patience, func() error {
			lines := a.behind(t, m)
			ok := len(lines) == len(want)
			for i := range min(len(lines), len(want)) {
				ok = ok && strings.Contains(lines[i], want[i])
			}
			if !ok {
				return fmt.Errorf("%s is behind %q, want %q", m, lines, want)
			}
			return nil
		})
	}
	expect(far, "dev weftvx master weave", "dev weftvx dst 192.168.77.2")
	expect(local, "dev pod master weave")
	expect(silent, "dev weftvx dst 192.168.77.2")
	if err := tap.Send(carriertest.Frame(ether.Broadcast, late, "")); err != nil {
		t.Fatal(err)
	}
	expect(late, "dev weft0 master weave")
	say(late)
	expect(late, "dev weftvx master weave", "dev weftvx dst 192.168.77.2")
	if err := tap.Send(carriertest.Frame(ether.Broadcast, far, "")); err != nil { // added entries move like learned ones
		t.Fatal(err)
	}
	expect(far, "dev weft0 master weave", "dev weftvx dst 192.168.77.2")
}
