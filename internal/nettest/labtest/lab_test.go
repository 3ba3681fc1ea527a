package labtest_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// ping sends one echo request and returns an error if there is no reply.
func ping(tb testing.TB, s *nettest.Space, to netip.Addr) error {
	tb.Helper()
	_, err := s.Run(tb.Context(), "ping", "-c1", "-W1", to.String())
	return err
}

func TestHostsReachEachOther(t *testing.T) {
	l := labtest.New(t, nettest.Config{})
	a, b := labtest.AddHost(t, l, "a"), labtest.AddHost(t, l, "b")
	for _, to := range []netip.Addr{b.Addr(), b.Addr6(), netip.MustParseAddr("192.168.77.254"), netip.MustParseAddr("fd77::fe")} {
		labtest.Until(t, 5*time.Second, func() error { return ping(t, a.Space, to) })
	}
	if got := len(l.Hosts()); got != 2 {
		t.Errorf("the lab has %d hosts, want 2", got)
	}
}

func TestMTU(t *testing.T) {
	l := labtest.New(t, nettest.Config{MTU: 9000})
	a, b := labtest.AddHost(t, l, "a"), labtest.AddHost(t, l, "b")
	labtest.Until(t, 5*time.Second, func() error {
		_, err := a.Run(t.Context(), "ping", "-c1", "-W1", "-Mdo", "-s8972", b.Addr().String())
		return err
	})
	if _, err := a.Run(t.Context(), "ping", "-c1", "-W1", "-Mdo", "-s8973", b.Addr().String()); err == nil {
		t.Error("a packet of 9001 bytes went through an MTU of 9000")
	}
}

func TestCutAndHeal(t *testing.T) {
	l := labtest.New(t, nettest.Config{})
	a, b, c := labtest.AddHost(t, l, "a"), labtest.AddHost(t, l, "b"), labtest.AddHost(t, l, "c")
	reach := func(from, to *nettest.Host) error { return ping(t, from.Space, to.Addr()) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	labtest.Until(t, 5*time.Second, func() error { return reach(a, b) })

	must(a.Cut(t.Context(), b))
	must(b.Cut(t.Context(), a)) // twice changes nothing
	if reach(a, b) == nil {
		t.Error("a reaches b although they are cut")
	}
	must(reach(a, c))
	must(reach(b, c))
	must(a.Heal(t.Context(), b))
	must(a.Heal(t.Context(), c)) // these two are not cut
	labtest.Until(t, 5*time.Second, func() error { return reach(a, b) })

	must(b.Unplug())
	if reach(a, b) == nil {
		t.Error("a reaches b although it is unplugged")
	}
	must(b.Plug())
	labtest.Until(t, 5*time.Second, func() error { return reach(a, b) })
}

func TestPodIsEmpty(t *testing.T) {
	l := labtest.New(t, nettest.Config{})
	h := labtest.AddHost(t, l, "a")
	p := labtest.AddPod(t, h, "web")
	if out := labtest.Run(t, p.Space, "ip", "-o", "link"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "lo:") {
		t.Errorf("the pod's interfaces are\n%s", out)
	}
	if p.Host() != h {
		t.Error("the pod is on another host")
	}
	if _, err := h.AddPod("web"); err == nil {
		t.Error("a second pod with the same name was created")
	}
	if _, err := h.AddPod("../web"); err == nil {
		t.Error("a pod with slashes in its name was created")
	}
}

func TestProcess(t *testing.T) {
	l := labtest.New(t, nettest.Config{})
	h := labtest.AddHost(t, l, "a")
	polite := labtest.Start(t, h, nettest.ProcessConfig{
		Name: "polite", Env: []string{"WHAT=world"},
		Argv: []string{"sh", "-c", `trap 'echo bye; exit 0' TERM; echo "hello $WHAT"; while :; do sleep 0.05; done`},
	})
	logs := func(want string) func() error {
		return func() error {
			if got := polite.Logs(); !strings.Contains(got, want) {
				return fmt.Errorf("the log is %q, without %q", got, want)
			}
			return nil
		}
	}
	labtest.Until(t, 5*time.Second, logs("hello world\n"))
	if err := polite.Stop(5 * time.Second); err != nil {
		t.Error(err)
	}
	labtest.Until(t, 5*time.Second, logs("bye\n"))

	stubborn := labtest.Start(t, h, nettest.ProcessConfig{
		Name: "stubborn", Argv: []string{"sh", "-c", `trap '' TERM; echo ready; while :; do sleep 0.05; done`},
	})
	labtest.Until(t, 5*time.Second, func() error {
		if stubborn.Logs() == "" {
			return errors.New("not ready")
		}
		return nil
	})
	if err := stubborn.Stop(50 * time.Millisecond); err == nil {
		t.Error("Stop returns no error for a process that it killed")
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	labtest.RequireRoot(t)
	l, err := nettest.New(nettest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := labtest.AddHost(t, l, "a")
	p := labtest.AddPod(t, h, "web")
	proc, err := h.Start(nettest.ProcessConfig{Argv: []string{"sleep", "600"}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := p.Command(context.Background(), "sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	<-proc.Done()
	<-ended
	left, _ := filepath.Glob("/run/netns/" + filepath.Base(l.Dir()) + "-*")
	if len(left) > 0 {
		t.Errorf("%v still exist", left)
	}
	if _, err := os.Stat(l.Dir()); !os.IsNotExist(err) {
		t.Errorf("%s still exists", l.Dir())
	}
	if _, err := l.AddHost("b"); err == nil {
		t.Error("AddHost on a closed lab succeeded")
	}
	if err := l.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}
