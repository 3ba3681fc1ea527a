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

// pinger is a ping that goes on until it is stopped.
type pinger struct {
	cmd *exec.Cmd
	out lockedBuffer
}

// lockedBuffer takes what a process prints, for others to read meanwhile.
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

// pinging starts a ping every 50 ms; it ends with the test at the latest.
func (p *pod) pinging(t *testing.T, to netip.Addr) *pinger {
	t.Helper()
	g := &pinger{cmd: p.Command(testContext(t), "ping", "-n", "-i", "0.05", "-W", "1", to.String())}
	g.cmd.Stdout, g.cmd.Stderr = &g.out, &g.out
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.cmd.Process.Kill(); _ = g.cmd.Wait() })
	return g
}

// answers counts the answers so far.
func (g *pinger) answers() int { return strings.Count(g.out.String(), "bytes from") }

// goesOn waits for further answers.
func (g *pinger) goesOn(t *testing.T, more int) {
	t.Helper()
	before := g.answers()
	labtest.Until(t, patience, func() error {
		if n := g.answers() - before; n < more {
			return fmt.Errorf("%d pings were answered, want %d", n, more)
		}
		return nil
	})
}

// stop ends the ping and returns how many went out and how many were not answered, without the one that may still be
// on its way.
func (g *pinger) stop(t *testing.T) (sent, lost int) {
	t.Helper()
	_ = g.cmd.Process.Signal(os.Interrupt)
	_ = g.cmd.Wait() // which fails where nothing was answered; the summary says it
	m := pingSummary.FindStringSubmatch(g.out.String())
	if m == nil {
		t.Fatal(g.out.String())
	}
	sent, _ = strconv.Atoi(m[1])
	received, _ := strconv.Atoi(m[2])
	return sent, max(0, sent-received-1)
}

// steady stops the ping and fails the test where more than 2 of 100 were lost, or one was answered twice.
func (g *pinger) steady(t *testing.T) {
	t.Helper()
	if sent, lost := g.stop(t); lost*50 > sent {
		t.Errorf("%d of %d pings were lost, want at most 2 of 100", lost, sent)
	}
	if strings.Contains(g.out.String(), "DUP!") {
		t.Error("a ping was answered twice")
	}
}
