package e2e

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
	"weft/internal/nettest/wireguardtest"
)

// tunnelPort is the UDP port of WireGuard.
const tunnelPort = "6786"

// tunneled is two nodes with a secret that have WireGuard, and a pod on each.
type tunneled struct {
	nodes   []*cluster.Node
	flags   [][]string
	devices []string // of WireGuard
	secrets []string
	pods    []*pod
}

// newTunneled starts nodes that carry each other by WireGuard.
func newTunneled(t *testing.T, args ...string) *tunneled {
	t.Helper()
	w := &tunneled{nodes: newNodes(t, "a", "b"), secrets: []string{newSecret(t)}}
	for i, n := range w.nodes {
		device, flags := "weftwg"+tunnelPort, slices.Clone(args)
		if !wireguardtest.Kernel() {
			device = wireguardtest.Start(t, n.Host)
			flags = append(flags, "--wireguard-device", device)
		}
		w.devices, w.flags = append(w.devices, device), append(w.flags, flags)
		w.setSecrets(t, w.secrets...)
		w.up(t, i)
	}
	waitReady(t, w.nodes)
	w.pods = reachingPods(t, w.nodes)
	w.wait(t, api.CarrierWireGuard)
	return w
}

// up starts the daemon of a node.
func (w *tunneled) up(t *testing.T, i int) {
	t.Helper()
	upSealed(t, w.nodes, w.nodes[i], w.flags[i]...)
}

// setSecrets writes the secret files of the nodes.
func (w *tunneled) setSecrets(t *testing.T, secrets ...string) {
	t.Helper()
	for _, n := range w.nodes {
		writeSecret(t, n, secrets...)
	}
}

// wait waits until both nodes use a carrier for each other.
func (w *tunneled) wait(t *testing.T, want api.Carrier) {
	t.Helper()
	waitCarrier(t, w.nodes, want)
}

// peers returns the peers of the device of WireGuard of a node.
func (w *tunneled) peers(t *testing.T, i int) (peers []wgtypes.Peer) {
	t.Helper()
	if err := w.nodes[i].Host.Do(func() error {
		client, err := wgctrl.New()
		if err != nil {
			return err
		}
		defer client.Close()
		device, err := client.Device(w.devices[i])
		if err == nil {
			peers = device.Peers
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return peers
}

// cut makes a node drop what arrives by WireGuard, or end that.
func (w *tunneled) cut(t *testing.T, i int, on bool) {
	t.Helper()
	rules := "delete table inet cutwg"
	if on {
		rules = "add table inet cutwg; add chain inet cutwg in { type filter hook input priority -300; };" +
			"add rule inet cutwg in udp dport " + tunnelPort + " drop"
	}
	labtest.Run(t, w.nodes[i].Space, "nft", rules)
}

// TestWireGuard: nodes with a secret carry frames by WireGuard in both directions, and say so. When its packets are lost, userspace carries
// them within a second, and WireGuard again later.
func TestWireGuard(t *testing.T) {
	w := newTunneled(t)
	transferBoth(t, w.pods, 16<<20)
	for i, n := range w.nodes {
		p := peerOf(t, n, w.nodes[1-i].Label())
		if !p.Encrypted || p.Cipher != api.CipherChaCha20Poly1305 || p.Datapath != api.DatapathKernel || p.Kernel.TxBytes < 16<<20 ||
			p.MTU != 1370 {
			t.Errorf("%+v", p)
		}
		if s := query[api.Status](t, n, "status"); len(s.Warnings) != 0 {
			t.Errorf("conditions %q", s.Warnings)
		}
	}
	pings := w.pods[0].pinging(t, w.pods[1].addr)
	pings.waitReplies(t, 20)
	w.cut(t, 1, true)
	w.wait(t, api.CarrierUserspace)
	pings.waitReplies(t, 5)
	w.cut(t, 1, false)
	w.wait(t, api.CarrierWireGuard)
	pings.waitReplies(t, 20)
	if sent, lost := pings.stop(t); lost > 20 {
		t.Errorf("%d of %d pings 50 ms apart were lost, want at most 20, which is one second", lost, sent)
	}
}

// TestWireGuardSecret: another secret makes another preshared key, without loss, and a secret that is dropped takes the tunnel along.
func TestWireGuardSecret(t *testing.T) {
	t.Parallel()
	w := newTunneled(t)
	pings := w.pods[0].pinging(t, w.pods[1].addr)
	pings.waitReplies(t, 20)
	first, back := w.peers(t, 0), w.peers(t, 1)
	if len(first) != 1 || len(back) != 1 || first[0].PresharedKey == (wgtypes.Key{}) || back[0].PresharedKey != first[0].PresharedKey {
		t.Fatalf("%+v and %+v", first, back)
	}
	next := newSecret(t)
	for _, secrets := range [][]string{{w.secrets[0], next}, {next, w.secrets[0]}, {next}} {
		w.setSecrets(t, secrets...)
		for _, n := range w.nodes {
			do(t, n, "reload")
		}
		pings.waitReplies(t, 20)
	}
	labtest.Until(t, patience, func() error {
		a, b := w.peers(t, 0), w.peers(t, 1)
		if len(a) != 1 || len(b) != 1 || a[0].PresharedKey != b[0].PresharedKey || a[0].PresharedKey == first[0].PresharedKey {
			return fmt.Errorf("%+v and %+v", a, b)
		}
		return nil
	})
	w.wait(t, api.CarrierWireGuard)
	pings.steady(t)
	writeSecret(t, w.nodes[0], newSecret(t), next)
	do(t, w.nodes[0], "reload")
	writeSecret(t, w.nodes[0], newSecret(t))
	do(t, w.nodes[0], "reload")
	labtest.Until(t, patience, func() error {
		if n := len(w.peers(t, 0)); n != 0 {
			return fmt.Errorf("%d tunnels after the common secret was dropped", n)
		}
		return nil
	})
}

// TestWireGuardOutlivesDaemon: WireGuard goes on carrying frames while the daemon of one node is dead, and after it is started again.
func TestWireGuardOutlivesDaemon(t *testing.T) {
	t.Parallel()
	w := newTunneled(t)
	pings := w.pods[0].pinging(t, w.pods[1].addr)
	pings.waitReplies(t, 20)
	w.nodes[1].Process().Kill()
	pings.wantNoGap(t, 60)
	waitState(t, w.nodes[0], "b", api.PeerDead)
	pings.wantNoGap(t, 20)
	w.up(t, 1)
	waitReady(t, w.nodes)
	pings.waitReplies(t, 20)
	w.wait(t, api.CarrierWireGuard)
}

// TestWireGuardDeleted: when the device of WireGuard is deleted, userspace carries the frames, and a condition says so until there is one
// again.
func TestWireGuardDeleted(t *testing.T) {
	t.Parallel()
	w := newTunneled(t)
	labtest.Run(t, w.nodes[0].Space, "ip", "link", "del", w.devices[0])
	w.pods[0].reaches(t, w.pods[1].addr)
	w.pods[1].reaches(t, w.pods[0].addr)
	if !wireguardtest.Kernel() {
		waitWarning(t, w.nodes[0], "no kernel path by WireGuard")
		wireguardtest.StartNamed(t, w.nodes[0].Host, w.devices[0])
	}
	w.wait(t, api.CarrierWireGuard)
	w.pods[0].reaches(t, w.pods[1].addr)
}

// TestWireGuardPlaintext: nothing of a pod crosses the underlay unsealed: while nodes start, carriers change, daemons are killed, secrets
// are reloaded and rules flushed.
func TestWireGuardPlaintext(t *testing.T) {
	t.Parallel()
	w := newTunneled(t)
	wire := captureUnderlay(t, w.nodes...)
	inside := captureOn(t, w.pods[0].Space, w.pods[0].addr) // the control
	pings := w.pods[0].Command(t.Context(), "ping", "-i", "0.02", "-s", "200", "-p", fmt.Sprintf("%x", marker), w.pods[1].addr.String())
	if err := pings.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pings.Process.Kill(); _ = pings.Wait() })
	more := func() {
		t.Helper()
		inside.packets(t)
		n := 0
		labtest.Until(t, patience, func() error {
			if n += marked(inside.packets(t)); n < 20 {
				return fmt.Errorf("%d packets of the pod", n)
			}
			return nil
		})
	}
	more()
	w.cut(t, 1, true)
	w.wait(t, api.CarrierUserspace)
	more()
	w.cut(t, 1, false)
	w.wait(t, api.CarrierWireGuard)
	for _, n := range w.nodes {
		do(t, n, "reload")
		labtest.Run(t, n.Space, "nft", "flush", "ruleset")
	}
	more()
	for i, n := range w.nodes {
		n.Process().Kill()
		more()
		w.up(t, i)
		more()
		waitReady(t, w.nodes)
		w.wait(t, api.CarrierWireGuard)
	}
	labtest.Run(t, w.nodes[0].Space, "ip", "link", "del", w.devices[0])
	more()
	for _, c := range wire {
		if packets := c.packets(t); marked(packets) != 0 || len(packets) == 0 {
			t.Errorf("%d of %d packets on the underlay at %s have the text of a pod", marked(packets), len(packets), c.host)
		}
	}
}

// marker is in what the pods send; ping takes patterns of 16 bytes.
const marker = "plaintextmarker!"

// marked returns how many packets have the marker.
func marked(packets []packet) (n int) {
	for _, p := range packets {
		if bytes.Contains(p.frame, []byte(marker)) {
			n++
		}
	}
	return n
}

// TestWireGuardWithOneSide: a node without WireGuard, or with ciphers that exclude it, is reached in userspace.
func TestWireGuardWithOneSide(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{{"--carriers", "vxlan"}, {"--cipher", "aes-256-gcm"}, {"--source-check", "enforce"}} {
		w := &tunneled{nodes: newNodes(t, "a", "b"), secrets: []string{newSecret(t)}}
		w.setSecrets(t, w.secrets...)
		var with []string
		if !wireguardtest.Kernel() {
			with = []string{"--wireguard-device", wireguardtest.Start(t, w.nodes[0].Host)}
		}
		w.flags = [][]string{with, flags}
		w.up(t, 0)
		w.up(t, 1)
		waitReady(t, w.nodes)
		w.pods = reachingPods(t, w.nodes)
		transferBoth(t, w.pods, 1<<20)
		w.wait(t, api.CarrierUserspace)
		if p := peerOf(t, w.nodes[0], "b"); !p.Encrypted {
			t.Errorf("%v: %+v", flags, p)
		}
	}
}

// TestWireGuardDeviceRefused: a device that does not exist, or has peers of another program, is named.
func TestWireGuardDeviceRefused(t *testing.T) {
	if wireguardtest.Kernel() {
		t.Skip("the flag is for devices of other programs")
	}
	t.Parallel()
	n := newNodes(t, "a")[0]
	writeSecret(t, n, newSecret(t))
	out, err := n.Weft(testContext(t), "up", "--secret-file", secretFile(n), "--wireguard-device", "absent").CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("--wireguard-device")) || !bytes.Contains(out, []byte("absent")) {
		t.Errorf("%v: %s", err, out)
	}
}
