package cni_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/nettest"
	"weft/internal/nettest/cnitest"
	"weft/internal/nettest/labtest"
)

// TestParallel: a hundred containers are added at once, and deleted at once.
func TestParallel(t *testing.T) {
	const count = 100
	h := newHost(t)
	h.configure(t, "net", "1.1.0")
	pods := make([]*nettest.Pod, count)
	for i := range pods {
		pods[i] = labtest.AddPod(t, h.Host, fmt.Sprint("p", i))
	}
	addresses := make([]string, count)
	var group errgroup.Group
	for i, p := range pods {
		group.Go(func() error {
			res, err := h.Add(t.Context(), "net", p.Path(), cnitest.Options{})
			if err == nil {
				addresses[i] = res.IPs[0].Address.String()
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, a := range addresses {
		if seen[a] {
			t.Errorf("%s was leased twice", a)
		}
		seen[a] = true
	}
	for _, p := range pods {
		group.Go(func() error { return h.Del(t.Context(), "net", p.Path(), cnitest.Options{}) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	h.wantClean(t, pods[0])
}

// TestBandwidth: the reference plugin for traffic shaping works after weft. It adds a device of its own to the result.
func TestBandwidth(t *testing.T) {
	requirePlugin(t, "bandwidth")
	h := newHost(t)
	h.configure(t, "shaped", "1.0.0", `{"type": "bandwidth", "capabilities": {"bandwidth": true}}`)
	p := labtest.AddPod(t, h.Host, "web")
	o := cnitest.Options{
		Capabilities: `{"bandwidth": {"ingressRate": 8000000, "ingressBurst": 80000, "egressRate": 8000000, "egressBurst": 80000}}`,
	}
	res := h.addPod(t, "shaped", p, o)
	if len(res.Interfaces) != 4 {
		t.Errorf("interfaces %v, want also that of the shaper", res.Interfaces)
	}
	if err := h.Check(t.Context(), "shaped", p.Path(), o); err != nil {
		t.Error(err)
	}
	if out := labtest.Run(t, h.Space, "tc", "qdisc", "show"); strings.Count(out, "tbf") != 2 {
		t.Errorf("no shapers in both directions:\n%s", out)
	}
	for range 2 {
		if err := h.Del(t.Context(), "shaped", p.Path(), o); err != nil {
			t.Error(err)
		}
	}
	h.wantClean(t, p)
	if out := labtest.Run(t, h.Space, "ip", "-br", "link", "show", "type", "ifb"); out != "" {
		t.Errorf("left behind: %s", out)
	}
}

// BenchmarkAdd measures one ADD of the plugin's program with a daemon that answers at once, and, for comparison, one of the
// reference bridge plugin with host-local addresses. MiB is the peak memory of the program, without its children.
func BenchmarkAdd(b *testing.B) {
	h := newHost(b)
	weft := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "net", "type": "weft", "socket": %q}`, h.Socket())
	local := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "ref", "type": "bridge", "bridge": "ref0",
		"ipam": {"type": "host-local", "dataDir": %q, "subnet": "10.99.0.0/16"}}`, b.TempDir())
	for _, c := range []struct{ name, program, conf string }{
		{"weft", filepath.Join(binDir, "weft"), weft},
		{"bridge", filepath.Join(cnitest.SystemPlugins(), "bridge"), local},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := labtest.AddPod(b, h.Host, c.name)
			peak := int64(0)
			call := func(command string) {
				cmd := h.Command(b.Context(), c.program)
				cmd.Env = []string{
					"CNI_COMMAND=" + command, "CNI_CONTAINERID=c", "CNI_IFNAME=eth0", "CNI_NETNS=" + p.Path(),
					"CNI_PATH=" + cnitest.SystemPlugins(),
				}
				cmd.Stdin = strings.NewReader(c.conf)
				if out, err := cmd.CombinedOutput(); err != nil {
					b.Fatalf("%s: %v %s", command, err, out)
				}
				if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
					peak = max(peak, usage.Maxrss)
				}
			}
			var spent time.Duration
			for b.Loop() {
				start := time.Now()
				call("ADD")
				spent += time.Since(start)
				call("DEL")
			}
			b.ReportMetric(float64(spent.Microseconds())/1000/float64(b.N), "ms/ADD")
			b.ReportMetric(float64(peak)/1024, "MiB")
		})
	}
}
