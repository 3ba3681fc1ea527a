package lab_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/bench/lab"
	"weft/bench/probe"
	"weft/internal/nettest/labtest"
)

// TestMain lets this program be the child of a probe.
func TestMain(m *testing.M) {
	probe.Child()
	os.Exit(m.Run())
}

// newLab returns a lab that is closed at the end of the test.
func newLab(t *testing.T, shape lab.Shape) *lab.Lab {
	t.Helper()
	labtest.RequireRoot(t)
	l, err := lab.New(t.Context(), shape)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// burst sends datagrams from the second end to the first.
func burst(t *testing.T, l *lab.Lab, size int, rate float64, length time.Duration) probe.Count {
	t.Helper()
	flow, err := probe.Open(end(l, 1), end(l, 0), size)
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	c, err := flow.Burst(t.Context(), rate, length)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func end(l *lab.Lab, i int) lab.End {
	return lab.End{Space: l.Ends[i].Space, Addr: l.Ends[i].Addr()}
}

func TestLossHasTheGivenRateAndEnds(t *testing.T) {
	l := newLab(t, lab.Pair)
	if err := l.Lose(t.Context(), 500, true); err != nil {
		t.Fatal(err)
	}
	// 5,000 datagrams: 40 % to 60 % are 14 standard deviations.
	if c := burst(t, l, 64, 10_000, 500*time.Millisecond); c.Lost() < 0.4 || c.Lost() > 0.6 {
		t.Errorf("loss of 50 %%: %v of %d datagrams were lost", c.Lost(), c.Sent)
	}
	if err := l.Lose(t.Context(), 0, true); err != nil {
		t.Fatal(err)
	}
	if c := burst(t, l, 64, 1000, 200*time.Millisecond); c.Received == 0 || c.Received != c.Sent {
		t.Errorf("after the loss, %d of %d arrive", c.Received, c.Sent)
	}
}

func TestLimitHolds(t *testing.T) {
	l := newLab(t, lab.Pair)
	if err := l.Limit(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	const length = time.Second
	c := burst(t, l, 1400, 0, length)
	if bits := float64(c.Received*1400*8) / length.Seconds(); c.Received == 0 || bits > 20e6 {
		t.Errorf("10 Mbit/s carried %.1f Mbit/s", bits/1e6)
	}
	if err := l.Limit(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if out := labtest.Run(t, l.Ends[0].Space, "tc", "qdisc", "show", "dev", "eth0"); strings.Contains(out, "tbf") {
		t.Errorf("the limit was not removed: %s", out)
	}
}

// countTable counts forwarded packets that are larger than the underlay's MTU.
const countTable = `table bridge count {
	chain forward {
		type filter hook forward priority 0;
		meta length > 1514 counter
	}
}
`

func TestPlainCutsBatches(t *testing.T) {
	l := newLab(t, lab.Pair)
	cmd := l.Switch().Command(t.Context(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(countTable)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, plain := range []bool{true, false} {
		if err := l.Plain(t.Context(), plain); err != nil {
			t.Fatal(err)
		}
		sendTCP(t, l)
		sendUDP(t, l)
		shown := labtest.Run(t, l.Switch(), "nft", "list", "table", "bridge", "count")
		if none := strings.Contains(shown, "packets 0 "); none != plain {
			t.Errorf("plain %v: %s", plain, shown)
		}
	}
}

// sendUDP sends batches of datagrams in one system call each.
func sendUDP(t *testing.T, l *lab.Lab) {
	t.Helper()
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(l.Ends[0].Addr(), 9))
	err := l.Ends[1].Do(func() error {
		conn, err := net.DialUDP("udp4", nil, to)
		if err != nil {
			return err
		}
		defer conn.Close()
		raw, err := conn.SyscallConn()
		if err != nil {
			return err
		}
		var set error
		err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1400) })
		for range 3 {
			_, _ = conn.Write(make([]byte, 20*1400)) // no socket listens, so later writes fail
		}
		return errors.Join(err, set)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sendTCP sends a few MB over TCP.
func sendTCP(t *testing.T, l *lab.Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	server := l.Ends[0].Command(ctx, "iperf3", "--server", "--one-off")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	labtest.Until(t, 5*time.Second, func() error {
		_, err := l.Ends[1].Run(ctx, "iperf3", "--client", l.Ends[0].Addr().String(), "--bytes", "8M")
		return err
	})
	_ = server.Wait()
}

func TestChainGoesThroughTheRouter(t *testing.T) {
	l := newLab(t, lab.Chain)
	out := labtest.Run(t, l.Ends[0].Space, "ping", "-n", "-c", "1", "-W", "2", l.Ends[1].Addr().String())
	if !strings.Contains(out, "ttl=63") {
		t.Errorf("no router decremented the TTL: %s", out)
	}
}

func TestThree(t *testing.T) {
	l := newLab(t, lab.Three)
	if len(l.Ends) != 3 || l.Shape.String() != "three" {
		t.Errorf("%d ends in a %v", len(l.Ends), l.Shape)
	}
	if _, err := lab.New(t.Context(), 0); err == nil {
		t.Error("New with an invalid shape returned no error")
	}
}
