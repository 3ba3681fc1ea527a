package e2e

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/capture/pcapng"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// captureWhile runs "weft capture" with the given arguments and calls traffic repeatedly until the command ends.
func captureWhile(t *testing.T, n *cluster.Node, traffic func() error, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	cmd := n.Weft(testContext(t), append([]string{"capture"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &err
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	labtest.Until(t, patience, func() error {
		_ = traffic()
		select {
		case failed := <-done:
			if failed != nil {
				t.Fatalf("weft capture: %v: %s", failed, err.String())
			}
			return nil
		default:
			return errNotYet
		}
	})
	return out.String(), err.String()
}

var errNotYet = errors.New("not yet")

// TestWeftCapture: a capture shows frames to and from a peer in plain text, for the encrypted userspace path, for the
// kernel path and for direct routing, as text and as a file. The interfaces in the file are peers.
func TestWeftCapture(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"sealed", "kernel", "direct"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := newNodes(t, "a", "b")
			switch name {
			case "sealed":
				startSealed(t, nodes, newSecret(t))
			case "direct":
				start(t, nodes, directRouting...)
			default:
				start(t, nodes)
			}
			from, to := attach(t, nodes[0], "p"), attach(t, nodes[1], "p")
			want := "session "
			if name == "direct" {
				waitCarrier(t, nodes, api.CarrierDirect)
			}
			if name != "sealed" {
				waitDatapath(t, nodes[0], "b", api.DatapathKernel)
				want = "carried by the kernel"
			}
			ping := func() error { return cluster.Ping(testContext(t), from.Space, to.addr) }
			labtest.Until(t, patience, ping)

			text, summary := captureWhile(t, nodes[0], ping, "-c", "4", "--peer", "b", "icmp", "and", "host", to.addr.String())
			sent := "to b: " + from.addr.String() + " > " + to.addr.String() + " ICMP EchoRequest"
			back := "from b: " + to.addr.String() + " > " + from.addr.String() + " ICMP EchoReply"
			if !strings.Contains(text, sent) || !strings.Contains(text, back) || strings.Count(text, "\n") != 4 ||
				!strings.Contains(summary, "4 frames captured, 0 left out") {
				t.Errorf("the output is\n%sand the summary %s; want %q and %q in 4 lines", text, summary, sent, back)
			}

			path := filepath.Join(t.TempDir(), "x.pcapng")
			captureWhile(t, nodes[1], ping, "--write", path, "--count", "4", "--snaplen", "60", "icmp")
			file, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			r, err := pcapng.NewReader(file)
			if err != nil {
				t.Fatal(err)
			}
			for range 4 {
				f, err := r.Next()
				if err != nil {
					t.Fatal(err)
				}
				if f.Path.Peer != "a" || len(f.Data) != 60 || f.Length <= 60 || !strings.HasPrefix(f.Path.Session, want) ||
					!strings.Contains(pcapng.Text(f.Data, f.Length), "ICMP Echo") {
					t.Errorf("%+v: %s", f.Path, pcapng.Text(f.Data, f.Length))
				}
			}
			if out := labtest.Run(t, nodes[1].Space, "tcpdump", "-nr", path); strings.Count(out, "ICMP echo") != 4 {
				t.Errorf("tcpdump prints\n%s", out)
			}
		})
	}
}

// TestWeftCaptureRefuses: a capture with wrong arguments fails with an error that names the argument.
func TestWeftCaptureRefuses(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	start(t, []*cluster.Node{n})
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"tcp", "prot", "80"}, `"prot" (word 2)`},
		{[]string{"-w", filepath.Join(t.TempDir(), "none", "x.pcapng")}, "--write: open"},
		{[]string{"-w", "/dev/full", "-c", "1", "arp"}, "--write: write /dev/full: no space left on device"},
		{[]string{"--peer", "none"}, "no live peer has the name"},
		{[]string{"--snaplen", "-1"}, "--snaplen"},
	} {
		out, err := n.Do(testContext(t), append([]string{"capture"}, c.args...)...)
		if err == nil || !strings.Contains(out, c.says) {
			t.Errorf("weft capture %v: %v, %s; want an error with %s", c.args, err, out, c.says)
		}
	}
}
