// Package labtest is nettest for tests: what fails there ends the test here.
package labtest

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"weft/internal/nettest"
)

// RequireRoot skips the test where the privilege for a kernel test is missing, and fails it where WEFT_TEST=require
// says that all tests must run, as in CI.
func RequireRoot(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("kernel tests do not run in short mode")
	}
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("WEFT_TEST") == "require" {
		tb.Fatal("this test needs root, and WEFT_TEST=require forbids to skip it")
	}
	tb.Skip("this test needs root")
}

// Needs is Missing where a program is not there.
func Needs(tb testing.TB, program string) {
	tb.Helper()
	if _, err := exec.LookPath(program); err != nil {
		Missing(tb, program)
	}
}

// Missing skips a test that lacks a program, and fails it where WEFT_TEST=require says that all tests must run.
func Missing(tb testing.TB, program string) {
	tb.Helper()
	if os.Getenv("WEFT_TEST") == "require" {
		tb.Fatalf("this test needs %s, and WEFT_TEST=require forbids to skip it", program)
	}
	tb.Skip("this test needs " + program)
}

// New returns a lab that ends with the test.
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

// Run runs a command in a namespace, at most for 30 seconds, and returns what it printed.
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

// Start starts a process on a host. When the test has failed, its end prints what the process logged.
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

// Until waits until f returns nil and ends the test with f's last error when that takes longer than timeout.
func Until(tb testing.TB, timeout time.Duration, f func() error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), timeout)
	defer cancel()
	if err := nettest.Until(ctx, f); err != nil {
		tb.Fatal(err)
	}
}
