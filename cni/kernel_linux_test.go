package cni_test

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

	"weft/cni"
	"weft/internal/api"
	"weft/internal/leases/holder"
	"weft/internal/nettest"
	"weft/internal/nettest/cnitest"
	"weft/internal/nettest/labtest"
	"weft/internal/podlink"
)

// TestRuntime calls all verbs in each version that libcni supports.
func TestRuntime(t *testing.T) {
	h := newHost(t)
	for i, v := range cni.Versions().SupportedVersions() {
		network := fmt.Sprintf("net%d", i)
		h.configure(t, network, v)
		a := labtest.AddPod(t, h.Host, fmt.Sprintf("a%d", i))
		b := labtest.AddPod(t, h.Host, fmt.Sprintf("b%d", i))
		h.addPod(t, network, a, cnitest.Options{})
		ip := h.addPod(t, network, b, cnitest.Options{}).IPs[0].Address.IP
		labtest.Run(t, a.Space, "ping", "-c1", "-W2", ip.String())
		labtest.Run(t, a.Space, "ping", "-c1", "-W2", h.Addr().String())
		if _, err := h.Add(t.Context(), network, a.Path(), cnitest.Options{}); err == nil || !strings.Contains(err.Error(), `"eth0"`) {
			t.Errorf("%s: second ADD: %v, want an error that names eth0", v, err)
		}
		if v != "0.3.1" {
			if err := h.Check(t.Context(), network, a.Path(), cnitest.Options{}); err != nil {
				t.Errorf("%s: %v", v, err)
			}
		}
		for _, p := range []*nettest.Pod{a, b, a, b} {
			if err := h.Del(t.Context(), network, p.Path(), cnitest.Options{}); err != nil {
				t.Errorf("%s: %v", v, err)
			}
		}
		h.wantClean(t, a)
	}
}

// TestRuntimeChained: the reference plugin after weft publishes a port.
func TestRuntimeChained(t *testing.T) {
	requirePlugin(t, "portmap")
	h := newHost(t)
	h.configure(t, "chain", "1.0.0", `{"type": "portmap", "capabilities": {"portMappings": true}}`)
	p := labtest.AddPod(t, h.Host, "web")
	o := cnitest.Options{Capabilities: `{
		"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
		"ips": ["10.32.7.7/12", "fd32::77/64"], "mac": "02:00:00:00:77:07"}`}
	res := h.addPod(t, "chain", p, o)
	if got := res.IPs[0].Address.String(); got != "10.32.7.7/12" || res.Interfaces[2].Mac != "02:00:00:00:77:07" {
		t.Errorf("asked for 10.32.7.7/12 and got %s", got)
	}
	stop := serveHello(t, p)
	defer stop()
	labtest.Until(t, 5*time.Second, func() error {
		return readHello(h.Space, netip.AddrPortFrom(netip.MustParseAddr("10.32.7.7"), 80))
	})
	labtest.Until(t, 5*time.Second, func() error {
		return readHello(h.lab.Switch(), netip.AddrPortFrom(h.Addr(), 8080))
	})
	// No CHECK: portmap of Debian 12 looks for IPv4 rules among those of IPv6, with any plugin before it.
	for range 2 {
		if err := h.Del(t.Context(), "chain", p.Path(), o); err != nil {
			t.Error(err)
		}
	}
	h.wantClean(t, p)
}

// TestRuntimeTuned: CHECK accepts the changes that a later plugin made to the interface.
func TestRuntimeTuned(t *testing.T) {
	requirePlugin(t, "tuning")
	h := newHost(t)
	h.configure(t, "tuned", "1.0.0", `{"type": "tuning", "mac": "02:00:00:00:00:42", "mtu": 1300}`)
	p := labtest.AddPod(t, h.Host, "web")
	res := h.addPod(t, "tuned", p, cnitest.Options{})
	if got := res.Interfaces[2].Mac; got != "02:00:00:00:00:42" {
		t.Errorf("MAC %s", got)
	}
	if err := h.Check(t.Context(), "tuned", p.Path(), cnitest.Options{}); err != nil {
		t.Error(err)
	}
	labtest.Run(t, h.Space, "ip", "link", "set", res.Interfaces[1].Name, "nomaster")
	if err := h.Check(t.Context(), "tuned", p.Path(), cnitest.Options{}); err == nil || !strings.Contains(err.Error(), "not a port of weave") {
		t.Errorf("CHECK of a link that is off the bridge: %v", err)
	}
	if err := h.Del(t.Context(), "tuned", p.Path(), cnitest.Options{}); err != nil {
		t.Error(err)
	}
	h.wantClean(t, p)
}

// requirePlugin skips the test if a reference plugin is missing, or fails it where tests must not be skipped.
func requirePlugin(t *testing.T, name string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(cnitest.SystemPlugins(), name)); err == nil {
		return
	}
	if os.Getenv("WEFT_TEST") == "require" {
		t.Fatalf("the reference plugin %s is missing: apt install containernetworking-plugins", name)
	}
	t.Skipf("needs the reference plugin %s: apt install containernetworking-plugins", name)
}

// TestRuntimeFails: errors and their effects as libcni sees them.
func TestRuntimeFails(t *testing.T) {
	h := newHost(t)
	h.configure(t, "net", "1.1.0")
	p := labtest.AddPod(t, h.Host, "a")
	if err := h.Status(t.Context(), "net"); err != nil {
		t.Error(err)
	}
	if err := h.Del(t.Context(), "net", p.Path(), cnitest.Options{}); err != nil {
		t.Errorf("DEL of an unknown container: %v", err)
	}
	h.addPod(t, "net", p, cnitest.Options{})
	if got := h.daemon.owners(); len(got) != 1 || got[0] != holder.ForContainer("net", cnitest.ContainerID(p.Path()), "eth0").String() {
		t.Errorf("owners %v", got)
	}
	if err := h.GC(t.Context(), "net"); err != nil {
		t.Error(err)
	}
	h.wantClean(t, p)

	h.daemon.failJoin(&api.Problem{Kind: api.KindExhausted, Detail: "no address is left in 10.32.0.0/12"})
	if _, err := h.Add(t.Context(), "net", p.Path(), cnitest.Options{}); err == nil || !strings.Contains(err.Error(), "no address is left") {
		t.Errorf("ADD without addresses: %v", err)
	}
	h.wantClean(t, p)
}

// gateway is the address of the bridge.
const gateway = "10.32.0.1"

// TestRuntimesShareNetwork: the GC of one runtime leaves a container of another alone, and one with a process although its list
// lacks it; it removes what a lost DEL left. The runtimes are cnitool, and this test, which calls the plugin itself.
func TestRuntimesShareNetwork(t *testing.T) {
	h := newHost(t)
	h.configure(t, "net", "1.1.0")
	conf := fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "net", "type": "weft", "socket": %q}`, h.Socket())
	call := func(env ...string) {
		t.Helper()
		if answer, err := h.Exec(t.Context(), conf, env...); err != nil || answer["code"] != nil {
			t.Fatal(answer, err)
		}
	}
	add := func(name string) *nettest.Pod {
		t.Helper()
		p := labtest.AddPod(t, h.Host, name)
		call("CNI_COMMAND=ADD", "CNI_CONTAINERID="+name, "CNI_IFNAME=eth0", "CNI_NETNS="+p.Path())
		return p
	}
	wantPods := func(alive ...*nettest.Pod) {
		t.Helper()
		for _, p := range alive {
			labtest.Run(t, p.Space, "ping", "-c1", "-W2", gateway)
		}
		if got := h.daemon.owners(); len(got) != len(alive) {
			t.Errorf("leases of %v, want %d", got, len(alive))
		}
	}
	running, lost := add("running"), add("lost")
	labtest.Occupy(t, running.Space)
	if err := h.GC(t.Context(), "net"); err != nil { // by cnitool
		t.Fatal(err)
	}
	wantPods(running, lost)
	call("CNI_COMMAND=GC")
	wantPods(running)
	if _, _, err := podlink.New().Addresses(lost.Path(), "eth0"); !errors.Is(err, podlink.ErrNoLink) {
		t.Errorf("the interface that a lost DEL left: %v, want ErrNoLink", err)
	}
	gone := add("gone")
	labtest.Run(t, h.Space, "ip", "netns", "del", gone.Name())
	labtest.Until(t, 5*time.Second, func() error { // the kernel removes the namespace in the background
		if err := h.GC(t.Context(), "net"); err != nil {
			return err
		}
		if got := h.daemon.owners(); len(got) != 1 {
			return fmt.Errorf("leases of %v, want none of the namespace that is gone", got)
		}
		return nil
	})
	wantPods(running)
}

// TestAddAfterKilledAdd: ADD succeeds with a pair that a killed ADD left.
func TestAddAfterKilledAdd(t *testing.T) {
	h := newHost(t)
	h.configure(t, "net", "1.1.0")
	p := labtest.AddPod(t, h.Host, "a")
	host, _ := holder.ForContainer("net", cnitest.ContainerID(p.Path()), "eth0").HostLink()
	labtest.Run(t, h.Space, "ip", "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", p.Name())
	labtest.Run(t, h.Space, "ip", "link", "set", host, "alias", "weft: pod; pending")
	h.addPod(t, "net", p, cnitest.Options{})
	labtest.Run(t, p.Space, "ping", "-c1", "-W2", gateway)
	if _, err := h.Add(t.Context(), "net", p.Path(), cnitest.Options{}); err == nil || !strings.Contains(err.Error(), "DEL") {
		t.Errorf("second ADD: %v, want an error with a hint", err)
	}
	if err := h.Del(t.Context(), "net", p.Path(), cnitest.Options{}); err != nil {
		t.Error(err)
	}
	h.wantClean(t, p)
}

// TestBinary: the program returns error codes, which libcni's tool does not show.
func TestBinary(t *testing.T) {
	h := newHost(t)
	p := labtest.AddPod(t, h.Host, "a")
	conf := func(socket string) string {
		return fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "net", "type": "weft", "socket": %q}`, socket)
	}
	call := func(conf, command, netns string) map[string]any {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		answer, err := h.Exec(ctx, conf, "CNI_COMMAND="+command, "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS="+netns)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	unreachable := conf(filepath.Join(h.Dir(), "missing.sock"))
	for _, c := range []struct {
		what    string
		answer  map[string]any
		code    float64
		message string
	}{
		{"ADD without a daemon", call(unreachable, "ADD", p.Path()), 11, "missing.sock"},
		{"STATUS without a daemon", call(unreachable, "STATUS", ""), 50, "missing.sock"},
		{"ADD to no namespace", call(conf(h.Socket()), "ADD", "/run/netns/gone"), 8, "gone"},
		{"ADD to the host's namespace", call(conf(h.Socket()), "ADD", h.Path()), 8, "namespace of the host"},
		{"ADD in an old version", call(strings.Replace(unreachable, "1.1.0", "0.2.0", 1), "ADD", p.Path()), 1, "version"},
		{"ADD without a namespace", call(unreachable, "ADD", ""), 4, "CNI_NETNS"},
	} {
		if c.answer["code"] != c.code || !strings.Contains(fmt.Sprint(c.answer["msg"]), c.message) {
			t.Errorf("%s: %v, want code %v and %q", c.what, c.answer, c.code, c.message)
		}
	}
	if answer := call(unreachable, "DEL", p.Path()); len(answer) > 0 {
		t.Errorf("DEL without a daemon: %v", answer)
	}
	if answer := call(`{"cniVersion": "1.1.0"}`, "VERSION", ""); len(answer["supportedVersions"].([]any)) != 4 {
		t.Errorf("VERSION: %v", answer)
	}
	h.wantClean(t, p)
}
