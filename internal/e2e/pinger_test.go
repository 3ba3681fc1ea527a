package e2e

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"weft/internal/nettest/labtest"
)

// pinger is a ping that runs until it is stopped.
type pinger struct {
	cmd *exec.Cmd
	out lockedBuffer
}

// lockedBuffer buffers the output of a running process. Its methods may be called concurrently.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// pinging starts a ping with an echo request every 50 ms. It ends with the test at the latest.
func (p *pod) pinging(t *testing.T, to netip.Addr) *pinger {
	t.Helper()
	g := &pinger{cmd: p.Command(t.Context(), "ping", "-n", "-i", "0.05", "-W", "1", to.String())}
	g.cmd.Stdout, g.cmd.Stderr = &g.out, &g.out
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.cmd.Process.Kill(); _ = g.cmd.Wait() })
	return g
}

// answers returns the number of replies so far.
func (g *pinger) answers() int { return strings.Count(g.out.String(), "bytes from") }

// waitReplies waits for the given number of further replies.
func (g *pinger) waitReplies(t *testing.T, more int) {
	t.Helper()
	before := g.answers()
	labtest.Until(t, patience, func() error {
		if n := g.answers() - before; n < more {
			return fmt.Errorf("%d pings got a reply, want %d", n, more)
		}
		return nil
	})
}

// stop ends the ping and returns the number of requests and of missing replies. The last reply, which may still be in
// flight, does not count as missing.
func (g *pinger) stop(t *testing.T) (sent, lost int) {
	t.Helper()
	_ = g.cmd.Process.Signal(os.Interrupt)
	_ = g.cmd.Wait() // fails without any reply, but the summary shows that
	m := pingSummary.FindStringSubmatch(g.out.String())
	if m == nil {
		t.Fatal(g.out.String())
	}
	sent, _ = strconv.Atoi(m[1])
	received, _ := strconv.Atoi(m[2])
	return sent, max(0, sent-received-1)
}

// steady stops the ping and fails the test if more than 2 % of the replies are missing, or if there is a duplicate.
func (g *pinger) steady(t *testing.T) {
	t.Helper()
	if sent, lost := g.stop(t); lost*50 > sent {
		t.Errorf("%d of %d pings were lost, want at most 2 of 100", lost, sent)
	}
	if strings.Contains(g.out.String(), "DUP!") {
		t.Error("a ping got two replies")
	}
}
