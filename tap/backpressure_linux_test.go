package tap_test

import (
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"weft/tap"
	"weft/tap/taptest"
)

// framesTo returns n equal frames to a pod.
func framesTo(pod byte, n int) []tap.Frame {
	f := make([]byte, 1500)
	copy(f, []byte{0x0a, 0, 0, 0, 0, pod, 0x0a, 1, 1, 1, 1, 1, 0x88, 0xb5})
	return slices.Repeat([]tap.Frame{{Data: f}}, n)
}

// TestBackpressure: a writer that has to wait because the host's queue is full continues when the queue has space,
// although no frame is read from the device, which would wake the writer.
func TestBackpressure(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			taptest.InNamespace(t)
			d := open(t, tap.Config{Name: "wd-tap", MTU: 1500, Queues: 1, Plain: kind.plain})
			q := d.Queues()[0]
			if err := tap.LimitWrites(q, 1); err != nil {
				t.Fatal(err)
			}
			frames := framesTo(1, 64)
			for range 500 {
				if n, err := q.WriteFrames(frames); n != len(frames) || err != nil {
					t.Fatalf("WriteFrames = %d, %v", n, err)
				}
			}
		})
	}
}

// TestSlowPod: where the host takes no frames for a while, the rest of a batch is refused. Later frames pass again.
func TestSlowPod(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			taptest.InNamespace(t)
			d := open(t, tap.Config{Name: "wd-tap", MTU: 1500, Queues: 1, Plain: kind.plain})
			q := d.Queues()[0]
			if err := tap.LimitWrites(q, 4096); err != nil {
				t.Fatal(err)
			}
			release := slowPort(t, d.Name(), "8bit")
			frames := framesTo(1, 64)
			if n, err := q.WriteFrames(frames); n == len(frames) || !errors.Is(err, tap.ErrFrame) {
				t.Fatalf("WriteFrames = %d, %v", n, err)
			}
			release()
			if n, err := q.WriteFrames(frames[:1]); n != 1 || err != nil {
				t.Errorf("WriteFrames = %d, %v after the host has taken what it had", n, err)
			}
		})
	}
}

// TestLimitedPod: a pod with a limit of rate takes frames all the time, but fewer than come. The rest is refused after some waiting, and at
// once in the next calls, until it has taken all frames of one. Otherwise all pods would run at its rate.
func TestLimitedPod(t *testing.T) {
	taptest.InNamespace(t)
	d := open(t, tap.Config{Name: "wd-tap", MTU: 1500, Queues: 1})
	q := d.Queues()[0]
	if err := tap.LimitWrites(q, 4096); err != nil {
		t.Fatal(err)
	}
	release := slowPort(t, d.Name(), "2400kbit") // a frame in 5 ms
	frames := framesTo(1, 512)
	for call, waited := range []bool{true, false, false} {
		if n, err := q.WriteFrames(frames); n == len(frames) || !errors.Is(err, tap.ErrFrame) || tap.Waits(q) > 0 != waited {
			t.Errorf("call %d: WriteFrames = %d, %v after waiting %d times", call, n, err, tap.Waits(q))
		}
	}
	release()
	if n, err := q.WriteFrames(frames[:1]); n != 1 || err != nil {
		t.Errorf("WriteFrames = %d, %v after the host has taken what it had", n, err)
	}
}

// forwards waits until a port of a bridge forwards frames, which it does a moment after both of its ends are up.
func forwards(t *testing.T, port string) {
	t.Helper()
	for range 1000 {
		out, err := exec.CommandContext(t.Context(), "bridge", "link", "show", "dev", port).CombinedOutput()
		if err != nil {
			t.Fatalf("bridge link: %v: %s", err, out)
		}
		if strings.Contains(string(out), "state forwarding") {
			return
		}
	}
	t.Fatalf("%s does not forward", port)
}

// slowPort connects the TAP to a bridge with a port that sends at a rate, in the words of tc, until release is called.
func slowPort(t *testing.T, name, rate string) (release func()) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	link := func(name string) netlink.Link {
		t.Helper()
		l, err := netlink.LinkByName(name)
		must(err)
		return l
	}
	must(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "wd-br"}}))
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "wd-port"}, PeerName: "wd-pod"}))
	for _, port := range []string{name, "wd-port"} {
		must(netlink.LinkSetMaster(link(port), link("wd-br")))
	}
	for _, l := range []string{"wd-br", "wd-port", "wd-pod"} {
		must(netlink.LinkSetUp(link(l)))
	}
	for _, port := range []string{name, "wd-port"} {
		forwards(t, port)
	}
	tc := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "tc", append([]string{"qdisc"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("tc: %v: %s", err, out)
		}
	}
	tc("add", "dev", "wd-port", "root", "tbf", "rate", rate, "burst", "2000", "limit", "1m")
	return func() { tc("del", "dev", "wd-port", "root") }
}
