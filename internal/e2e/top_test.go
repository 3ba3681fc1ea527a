package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// topStream is a running "weft top --json".
type topStream struct {
	cmd       *exec.Cmd
	documents *json.Decoder
	stderr    bytes.Buffer
}

func startTop(t *testing.T, n *cluster.Node, args ...string) *topStream {
	t.Helper()
	s := &topStream{cmd: n.Weft(testContext(t), append([]string{"top", "--json"}, args...)...)}
	s.cmd.Stderr = &s.stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.documents = json.NewDecoder(out)
	return s
}

// next returns the next document.
func (s *topStream) next(t *testing.T) (top api.Top) {
	t.Helper()
	if err := s.documents.Decode(&top); err != nil {
		t.Fatalf("weft top: %v: %s", err, s.stderr.String())
	}
	return top
}

// within reports whether an estimate is right but for a factor.
func within(estimate, exact, factor float64) bool {
	return estimate*factor >= exact && estimate <= exact*factor
}

// deviceBytes returns how many bytes a device of the host of n has sent.
func deviceBytes(t *testing.T, n *cluster.Node, device string) float64 {
	t.Helper()
	var links []struct {
		Stats struct{ TX struct{ Bytes float64 } } `json:"stats64"`
	}
	text := labtest.Run(t, n.Space, "ip", "-s", "-j", "link", "show", "dev", device)
	if err := json.Unmarshal([]byte(text), &links); err != nil || len(links) != 1 {
		t.Fatalf("%v: %s", err, text)
	}
	return links[0].Stats.TX.Bytes
}

// sentTo returns how many bytes a node has sent to another one in userspace.
func sentTo(t *testing.T, n *cluster.Node, name string) (sum float64) {
	t.Helper()
	for _, p := range query[[]api.Peer](t, n, "peers") {
		if p.Name == name {
			sum += float64(p.TxBytes)
		}
	}
	return sum
}

// TestTop: the largest flow is that of iperf3, by its addresses, port, protocol, peer and path. Its bytes, and those of its peer, are
// those of the exact counters but for the error of the sample.
func TestTop(t *testing.T) {
	t.Parallel()
	labtest.Needs(t, "iperf3")
	for _, datapath := range []api.Datapath{api.DatapathUserspace, api.DatapathKernel} {
		t.Run(string(datapath), func(t *testing.T) {
			t.Parallel()
			nodes := newNodes(t, "a", "b")
			start(t, nodes, "--datapath", string(datapath))
			from, to := attach(t, nodes[0], "p"), attach(t, nodes[1], "p")
			from.reaches(t, to.addr)
			waitDatapath(t, nodes[0], "b", datapath)
			counter := func() float64 { return sentTo(t, nodes[0], "b") }
			if datapath == api.DatapathKernel {
				counter = func() float64 { return deviceBytes(t, nodes[0], kernelDevice) }
			}
			server := to.Command(testContext(t), "iperf3", "--server")
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			top := startTop(t, nodes[0], "--interval", "500ms")
			top.next(t)
			before := counter()
			transferred := make(chan error, 1)
			client := from.Command(testContext(t), "iperf3", "--client", to.addr.String(), "--bytes", "400M")
			labtest.Until(t, patience, func() error { // until the server listens
				_, err := from.Run(testContext(t), "iperf3", "--client", to.addr.String(), "--bytes", "1K")
				return err
			})
			go func() { transferred <- client.Run() }()
			sums, peer := map[api.TopFlow]float64{}, 0.0
			for done := false; !done; {
				select {
				case err := <-transferred:
					if err != nil {
						t.Fatal(err)
					}
					done = true // one more document has the end
				default:
				}
				document := top.next(t)
				for _, p := range document.Peers {
					peer += p.TxBits * document.Interval / 8
					checkTopPeer(t, p, datapath)
				}
				for _, f := range document.Flows {
					bytes := f.Bits * document.Interval / 8
					f.Bits, f.Packets = 0, 0
					sums[f] += bytes
				}
			}
			exact := counter() - before
			largest := api.TopFlow{}
			for f, sum := range sums {
				if sum > sums[largest] {
					largest = f
				}
			}
			if largest.Source != from.addr || largest.Destination != to.addr || largest.DestinationPort != 5201 || largest.SourcePort == 0 ||
				largest.Protocol != "tcp" || largest.PeerName != "b" || !largest.Sent || largest.Path != datapath {
				t.Errorf("the largest flow is %+v", largest)
			}
			if !within(sums[largest], exact, 1.5) || !within(peer, exact, 1.5) {
				t.Errorf("%.0f bytes of the flow and %.0f to the peer, want those of the counter, %.0f", sums[largest], peer, exact)
			}
			t.Logf("flow %.3f, peer %.3f of the counter", sums[largest]/exact, peer/exact)
			if err := top.cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			if err := top.cmd.Wait(); err != nil {
				t.Errorf("after Ctrl-C: %v: %s", err, top.stderr.String())
			}
		})
	}
}

func checkTopPeer(t *testing.T, p api.TopPeer, datapath api.Datapath) {
	t.Helper()
	if p.Name != "b" || p.State != api.PeerAlive || p.Link != api.LinkDirect || p.Carrier.Datapath() != datapath || p.RTT == 0 ||
		p.Estimated && datapath == api.DatapathUserspace {
		t.Errorf("%+v", p)
	}
}

// TestTopDrops: drops appear with their reason.
func TestTopDrops(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	start(t, []*cluster.Node{n})
	outsider := labtest.AddHost(t, n.Lab(), "outsider")
	top := startTop(t, n, "--interval", "200ms")
	labtest.Until(t, patience, func() error {
		sendGarbage(t, outsider, netip.AddrPortFrom(n.Addr(), dataPort), rand.New(rand.NewPCG(1, 2)))
		if d := top.next(t); d.Drops["session"] == 0 {
			return fmt.Errorf("no drops of unknown sessions in %+v", d)
		}
		return nil
	})
	_ = top.cmd.Process.Kill()
	_ = top.cmd.Wait()
}

// TestTopEnds: --count ends the stream without an error; the end of the daemon ends it with one.
func TestTopEnds(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	start(t, []*cluster.Node{n})
	if out := do(t, n, "top", "--json", "--count", "2", "--interval", "100ms"); strings.Count(out, "{\"at\"") != 2 {
		t.Errorf("two documents: %s", out)
	}
	out := do(t, n, "top", "--count", "1", "--interval", "100ms")
	if !strings.HasPrefix(out, "weft top on a, ") || strings.Contains(out, "\x1b") {
		t.Errorf("a snapshot: %q", out)
	}
	for _, name := range []string{"stopped", "killed"} {
		end := n.Stop
		if name == "killed" {
			up(t, n)
			do(t, n, "wait", "--for", "ready")
			end = func() error { n.Process().Kill(); return nil }
		}
		top := startTop(t, n, "--interval", "100ms")
		top.next(t)
		if err := end(); err != nil {
			t.Fatal(err)
		}
		for err := error(nil); err == nil; {
			err = top.documents.Decode(&api.Top{})
		}
		_ = top.cmd.Wait()
		code := top.cmd.ProcessState.ExitCode()
		if code != hint.ExitNoDaemon || !strings.Contains(top.stderr.String(), "the daemon has stopped") {
			t.Errorf("%s: exit code %d: %s", name, code, top.stderr.String())
		}
	}
}
