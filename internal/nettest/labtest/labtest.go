// Package labtest wraps nettest for tests: an error ends the test.
package labtest

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"weft/internal/nettest"
)

// RequireRoot skips the test without root, which tests of the kernel need. With WEFT_TEST=require, as in CI, it fails the
// test instead.
func RequireRoot(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("kernel tests do not run in short mode")
	}
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("WEFT_TEST") == "require" {
		tb.Fatal("this test needs root, and WEFT_TEST=require forbids skipping it")
	}
	tb.Skip("this test needs root")
}

// Needs calls Missing if a program is not in PATH.
func Needs(tb testing.TB, program string) {
	tb.Helper()
	if _, err := exec.LookPath(program); err != nil {
		Missing(tb, program)
	}
}

// Missing skips a test because a program is missing. With WEFT_TEST=require it fails the test instead.
func Missing(tb testing.TB, program string) {
	tb.Helper()
	if os.Getenv("WEFT_TEST") == "require" {
		tb.Fatalf("this test needs %s, and WEFT_TEST=require forbids skipping it", program)
	}
	tb.Skip("this test needs " + program)
}

// New returns a lab that is closed at the end of the test. It calls RequireRoot.
func New(tb testing.TB, c nettest.Config) *nettest.Lab {
	tb.Helper()
	RequireRoot(tb)
	l, err := nettest.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := l.Close(); err != nil {
			tb.Error(err)
		}
	})
	return l
}

// AddHost adds a host to a lab.
func AddHost(tb testing.TB, l *nettest.Lab, name string) *nettest.Host {
	tb.Helper()
	h, err := l.AddHost(name)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// AddPod adds a pod to a host.
func AddPod(tb testing.TB, h *nettest.Host, name string) *nettest.Pod {
	tb.Helper()
	p, err := h.AddPod(name)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// Run runs a command in a namespace, for at most 30 seconds, and returns its output.
func Run(tb testing.TB, s *nettest.Space, argv ...string) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	defer cancel()
	out, err := s.Run(ctx, argv...)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// Start starts a process on a host and kills it at the end of the test. If the test failed, it logs the process's output.
func Start(tb testing.TB, h *nettest.Host, c nettest.ProcessConfig) *nettest.Process {
	tb.Helper()
	p, err := h.Start(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		p.Kill()
		if tb.Failed() {
			tb.Logf("%s on %s logged:\n%s", c.Argv[0], h.Label(), p.Logs())
		}
	})
	return p
}

// Until calls f repeatedly until it returns nil. If that takes longer than timeout, it ends the test with the last error.
func Until(tb testing.TB, timeout time.Duration, f func() error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), timeout)
	defer cancel()
	if err := nettest.Until(ctx, f); err != nil {
		tb.Fatal(err)
	}
}

// Occupy starts a process in a namespace, which runs until the test ends. It is there when Occupy returns.
func Occupy(tb testing.TB, s *nettest.Space) {
	tb.Helper()
	cmd := exec.Command("sleep", "infinity")
	if err := s.Do(cmd.Start); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}
