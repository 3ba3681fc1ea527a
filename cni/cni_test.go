package cni_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"weft/cni"
	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/leases/deletions"
	"weft/internal/leases/holder"
	"weft/internal/podlink"
	"weft/internal/podlink/linktest"
)

var errNoDaemon = fmt.Errorf("%w at /run/weft/weft.sock", api.ErrNoDaemon)

const owner = "cni/net/c1/eth0"

func TestAdd(t *testing.T) {
	b := newBench()
	b.add(t, args(`{"dns": {"nameservers": ["10.32.0.1"], "search": ["weft.local"]}}`))
	host := podlink.HostLinkName(owner, "eth0")
	want := `{
  "cniVersion": "1.1.0",
  "dns": {"nameservers": ["10.32.0.1"], "search": ["weft.local"]},
  "interfaces": [
    {"name": "weave"},
    {"mac": "` + podlink.HostLinkMAC(host).String() + `", "mtu": 1422, "name": "` + host + `"},
    {"mac": "0a:57:0a:20:00:02", "mtu": 1422, "name": "eth0", "sandbox": "/run/netns/pod"}
  ],
  "ips": [
    {"address": "10.32.0.2/12", "gateway": "10.32.0.1", "interface": 2},
    {"address": "fd32::2/64", "gateway": "fd32::1", "interface": 2}
  ],
  "routes": [{"dst": "0.0.0.0/0", "gw": "10.32.0.1"}, {"dst": "::/0", "gw": "fd32::1"}]
}`
	if diff := cmp.Diff(parse(t, want), parse(t, b.out.String())); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if got := b.links.Attached()[0]; !got.Hairpin || got.Bridge != "weave" {
		t.Errorf("attached %+v", got)
	}
	if got := b.daemon.owners(); !slices.Equal(got, []string{owner}) {
		t.Errorf("owners %v", got)
	}
}

func parse(t *testing.T, text string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

func TestAddOptions(t *testing.T) {
	b := newBench()
	b.add(t, args(`{"mtu": 1300, "hairpin": false}`))
	if s := b.links.Attached()[0]; s.MTU != 1300 || s.Hairpin {
		t.Errorf("attached %+v", s)
	}
}

// TestRequestedAddresses: addresses and MACs can be requested in three places, of which the first one wins.
func TestRequestedAddresses(t *testing.T) {
	for name, c := range map[string]struct {
		conf, env string
		ips       []string
		mac       string
	}{
		"none": {conf: `{}`, mac: "0a:57:0a:20:00:02"},
		"CNI_ARGS": {
			conf: `{}`, env: "IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.32.1.1;MAC=02:00:00:00:00:01",
			ips: []string{"10.32.1.1"}, mac: "02:00:00:00:00:01",
		},
		"CNI_ARGS two": {conf: `{}`, env: "IP=10.32.1.1/12,fd32::9/64", ips: []string{"10.32.1.1/12", "fd32::9/64"}, mac: "0a:57:0a:20:01:01"},
		"args": {
			conf: `{"args": {"cni": {"ips": ["10.32.1.2"], "mac": "02:00:00:00:00:02"}}}`,
			env:  "IP=10.32.1.1;MAC=02:00:00:00:00:01", ips: []string{"10.32.1.2"}, mac: "02:00:00:00:00:02",
		},
		"runtimeConfig": {
			conf: `{"runtimeConfig": {"ips": ["10.32.1.3/12"], "mac": "02:00:00:00:00:03"}, "args": {"cni": {"ips": ["10.32.1.2"]}}}`,
			env:  "IP=10.32.1.1", ips: []string{"10.32.1.3/12"}, mac: "02:00:00:00:00:03",
		},
	} {
		b := newBench()
		a := args(c.conf)
		a.Args = c.env
		res := b.add(t, a)
		if got := b.daemon.joins[0].IPs; !slices.Equal(got, c.ips) {
			t.Errorf("%s: asked for %v, want %v", name, got, c.ips)
		}
		if got := res.Interfaces[2].Mac; got != c.mac {
			t.Errorf("%s: MAC %s, want %s", name, got, c.mac)
		}
	}
	for name, c := range map[string]struct {
		conf, env string
		code      uint
	}{
		"bad IP":         {conf: `{"runtimeConfig": {"ips": ["10.32"]}}`, code: types.ErrInvalidNetworkConfig},
		"bad MAC":        {conf: `{"args": {"cni": {"mac": "02"}}}`, code: types.ErrInvalidNetworkConfig},
		"group MAC":      {conf: `{"runtimeConfig": {"mac": "01:00:00:00:00:00"}}`, code: types.ErrInvalidNetworkConfig},
		"bad IP in env":  {conf: `{}`, env: "IP=x", code: types.ErrInvalidEnvironmentVariables},
		"bad MAC in env": {conf: `{}`, env: "MAC=00:00:00:00:00:00", code: types.ErrInvalidEnvironmentVariables},
		"bad env":        {conf: `{}`, env: "IP", code: types.ErrInvalidEnvironmentVariables},
	} {
		b := newBench()
		a := args(c.conf)
		a.Args = c.env
		wantCode(t, name, b.plugin.Add(a), c.code)
		b.wantNothing(t, name)
	}
}

// TestVersions: the result has the version of the configuration, and DEL and CHECK accept it.
func TestVersions(t *testing.T) {
	for _, v := range cni.Versions().SupportedVersions() {
		b := newBench()
		conf := fmt.Sprintf(`{"cniVersion": %q}`, v)
		if err := b.plugin.Add(args(conf)); err != nil {
			t.Fatalf("%s: %v", v, err)
		}
		res := parse(t, b.out.String()).(map[string]any)
		if res["cniVersion"] != v || len(res["interfaces"].([]any)) != 3 || len(res["ips"].([]any)) != 2 {
			t.Errorf("%s: result %s", v, b.out.String())
		}
		after := args(conf, `{"prevResult": `+b.out.String()+`}`)
		if err := b.plugin.Check(after); err != nil {
			t.Errorf("%s: CHECK: %v", v, err)
		}
		for range 2 {
			if err := b.plugin.Del(after); err != nil {
				t.Errorf("%s: DEL: %v", v, err)
			}
		}
		b.wantNothing(t, v)
	}
}

// TestBehind: the result of a plugin before this one in the chain is kept.
func TestBehind(t *testing.T) {
	b := newBench()
	res := b.add(t, args(`{"prevResult": {"cniVersion": "1.1.0",
		"interfaces": [{"name": "net0", "sandbox": "/run/netns/pod"}], "ips": [{"address": "192.0.2.2/24", "interface": 0}],
		"dns": {"nameservers": ["192.0.2.1"]}}}`))
	if len(res.Interfaces) != 4 || len(res.IPs) != 3 || *res.IPs[0].Interface != 0 || *res.IPs[1].Interface != 3 ||
		res.DNS.Nameservers[0] != "192.0.2.1" {
		t.Errorf("result %s", b.out.String())
	}
	if err := b.plugin.Check(args(`{"prevResult": ` + b.out.String() + `}`)); err != nil {
		t.Errorf("CHECK: %v", err)
	}
}

func TestAddFails(t *testing.T) {
	refused := &url.Error{Op: "Put", URL: "http://weft/v1/join", Err: &net.OpError{Op: "read", Err: syscall.ECONNRESET}}
	for name, c := range map[string]struct {
		set  func(b *bench, a *skel.CmdArgs)
		code uint
		says string
	}{
		"no daemon":   {func(b *bench, _ *skel.CmdArgs) { b.daemon.fail = errNoDaemon }, types.ErrTryAgainLater, "weft.sock"},
		"daemon dies": {func(b *bench, _ *skel.CmdArgs) { b.daemon.joinErr = refused }, types.ErrTryAgainLater, "weft.sock"},
		"daemon hangs": {func(b *bench, _ *skel.CmdArgs) {
			b.daemon.joinErr = fmt.Errorf("api: %w", context.DeadlineExceeded)
		}, types.ErrTryAgainLater, "weft.sock"},
		"no address": {func(b *bench, _ *skel.CmdArgs) {
			b.daemon.joinErr = &api.Problem{Kind: api.KindExhausted, Detail: "no address is left in 10.32.0.0/12", Hint: "add a range"}
		}, cni.CodeNoAddress, "no address is left"},
		"taken": {func(b *bench, _ *skel.CmdArgs) {
			b.daemon.joinErr = &api.Problem{Kind: api.KindRefused, Detail: "10.32.0.9 belongs to x"}
		}, cni.CodeRefused, "belongs to x"},
		"waiting":  {func(b *bench, _ *skel.CmdArgs) { b.daemon.joinErr = &api.Problem{Kind: api.KindTimeout} }, types.ErrTryAgainLater, ""},
		"starting": {func(b *bench, _ *skel.CmdArgs) { b.daemon.joinErr = &api.Problem{Kind: api.KindStarting} }, types.ErrTryAgainLater, ""},
		"invalid": {func(b *bench, _ *skel.CmdArgs) {
			b.daemon.joinErr = &api.Problem{Kind: api.KindInvalid}
		}, types.ErrInvalidNetworkConfig, ""},
		"internal": {func(b *bench, _ *skel.CmdArgs) {
			b.daemon.joinErr = &api.Problem{Kind: api.KindInternal, Status: 500}
		}, types.ErrInternal, "500"},
		"no namespace": {func(_ *bench, a *skel.CmdArgs) { a.Netns = "/run/netns/gone" }, types.ErrInvalidNetNS, "CNI_NETNS"},
		"name in use": {func(b *bench, _ *skel.CmdArgs) {
			b.links.AddOther(netns, "eth0")
		}, types.ErrInvalidEnvironmentVariables, "CNI_IFNAME"},
		"bad name": {func(_ *bench, a *skel.CmdArgs) { a.IfName = "sixteen-symbols-" }, types.ErrInvalidEnvironmentVariables, "CNI_IFNAME"},
		"no bridge": {func(b *bench, _ *skel.CmdArgs) {
			b.links.Fail(linktest.OpAttach, podlink.ErrNoBridge)
		}, types.ErrTryAgainLater, "bridge"},
		"kernel":       {func(b *bench, _ *skel.CmdArgs) { b.links.Fail(linktest.OpAttach, syscall.EPERM) }, types.ErrInternal, "not permitted"},
		"bad MTU":      {func(_ *bench, a *skel.CmdArgs) { *a = *args(`{"mtu": 10}`) }, types.ErrInvalidNetworkConfig, "MTU"},
		"negative MTU": {func(_ *bench, a *skel.CmdArgs) { *a = *args(`{"mtu": -1}`) }, types.ErrInvalidNetworkConfig, "mtu"},
		"bad JSON":     {func(_ *bench, a *skel.CmdArgs) { *a = *args(`{"mtu": "x"}`) }, types.ErrDecodingFailure, "mtu"},
		"bad result": {func(_ *bench, a *skel.CmdArgs) {
			*a = *args(`{"prevResult": {"cniVersion": "9.9.9"}}`)
		}, types.ErrDecodingFailure, "prevResult"},
		"no output": {func(b *bench, _ *skel.CmdArgs) { b.plugin.Out = brokenWriter{} }, types.ErrIOFailure, "broken"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench()
			a := args()
			c.set(b, a)
			e := wantCode(t, "ADD", b.plugin.Add(a), c.code)
			if !strings.Contains(e.Msg, c.says) {
				t.Errorf("the message is %q, without %q", e.Msg, c.says)
			}
			b.daemon.fail = nil
			b.wantNothing(t, "ADD")
		})
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

// TestAddTwice: a second ADD fails and does not end the lease of the first one.
func TestAddTwice(t *testing.T) {
	b := newBench()
	b.add(t, args())
	host := podlink.HostLinkName(owner, "eth0")
	e := wantCode(t, "second ADD", b.plugin.Add(args()), types.ErrInvalidEnvironmentVariables)
	if !strings.Contains(e.Details, "ip link del "+host) {
		t.Errorf("second ADD: details %q, want a hint with %s", e.Details, host)
	}
	elsewhere := args()
	elsewhere.Netns = "/run/netns/other"
	b.links.AddNetns(elsewhere.Netns)
	e = wantCode(t, "ADD in another namespace", b.plugin.Add(elsewhere), types.ErrInvalidEnvironmentVariables)
	if !strings.Contains(e.Details, host) {
		t.Errorf("ADD in another namespace: details %q, want a hint with %s", e.Details, host)
	}
	if got := b.daemon.owners(); !slices.Equal(got, []string{owner}) {
		t.Errorf("owners %v", got)
	}
}

// TestAddAfterKill: ADD succeeds after an ADD that was killed before it printed a result, in the same namespace and in a new one,
// with the same address.
func TestAddAfterKill(t *testing.T) {
	for name, path := range map[string]string{"same namespace": netns, "new namespace": "/run/netns/new"} {
		b := newBench()
		first := b.add(t, args())
		killed := b.links.Attached()[0]
		if !killed.Origin.Pending {
			t.Fatalf("%s: ADD does not mark the pair until it has printed the result: %+v", name, killed.Origin)
		}
		for _, err := range []error{
			b.links.Detach(t.Context(), "", "", killed.HostName), // Confirm was never called for this one:
			ignore(b.links.Attach(t.Context(), killed)),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		b.links.AddNetns("/run/netns/new")
		again := args()
		again.Netns = path
		if got := b.add(t, again); got.IPs[0].Address.String() != first.IPs[0].Address.String() {
			t.Errorf("%s: the address changed from %v to %v", name, first.IPs[0].Address, got.IPs[0].Address)
		}
		if pairs, err := b.links.Pairs(); err != nil || len(pairs) != 1 || pairs[0].Origin.Pending {
			t.Errorf("%s: pairs %+v, %v", name, pairs, err)
		}
	}
}

// TestAddBesideOther: the error about an interface of another program says how to remove it.
func TestAddBesideOther(t *testing.T) {
	b := newBench()
	b.links.AddOther(netns, "eth0")
	e := wantCode(t, "ADD", b.plugin.Add(args()), types.ErrInvalidEnvironmentVariables)
	if want := "nsenter --net=" + netns + " ip link del eth0"; !strings.Contains(e.Details, want) {
		t.Errorf("details %q, want a hint with %q", e.Details, want)
	}
}

func ignore[T any](_ T, err error) error { return err }

func TestUndoFails(t *testing.T) {
	b := newBench()
	b.links.Fail(linktest.OpAttach, syscall.EPERM)
	b.links.Fail(linktest.OpDetach, syscall.EBUSY)
	if e := wantCode(t, "ADD", b.plugin.Add(args()), types.ErrInternal); !strings.Contains(e.Details, "link was not removed") {
		t.Errorf("details %q", e.Details)
	}
}

func TestDel(t *testing.T) {
	for name, set := range map[string]func(b *bench, a *skel.CmdArgs){
		"attached":         func(*bench, *skel.CmdArgs) {},
		"without netns":    func(_ *bench, a *skel.CmdArgs) { a.Netns = "" },
		"netns gone":       func(b *bench, _ *skel.CmdArgs) { b.links.RemoveNetns(netns) },
		"link gone":        func(b *bench, _ *skel.CmdArgs) { _ = b.links.Detach(context.Background(), netns, "eth0", "") },
		"lease gone":       func(b *bench, _ *skel.CmdArgs) { _ = b.daemon.Release(context.Background(), owner, "") },
		"junk in CNI_ARGS": func(_ *bench, a *skel.CmdArgs) { a.Args = "IP;;=" },
		"bad requests":     func(_ *bench, a *skel.CmdArgs) { *a = *args(`{"runtimeConfig": {"ips": ["x"], "mac": "y"}}`) },
	} {
		b := newBench()
		b.add(t, args())
		a := args()
		set(b, a)
		for range 2 {
			if err := b.plugin.Del(a); err != nil {
				t.Errorf("%s: DEL: %v", name, err)
			}
		}
		b.wantNothing(t, name)
	}
}

func TestDelUnknown(t *testing.T) {
	b := newBench()
	b.links.AddOther(netns, "eth0")
	if err := b.plugin.Del(args()); err != nil {
		t.Error(err)
	}
	if _, _, err := b.links.Addresses(netns, "eth0"); err != nil {
		t.Errorf("the other interface: %v", err)
	}
}

// TestDelWithoutDaemon: while the daemon does not run, DEL succeeds and removes the link. The lease ends when the daemon runs
// again, unless the container has been added again.
func TestDelWithoutDaemon(t *testing.T) {
	b := newBench()
	b.add(t, args())
	other := args()
	other.ContainerID = "c2"
	other.IfName = "eth1"
	b.add(t, other)
	b.daemon.fail = errNoDaemon
	for range 2 {
		for _, a := range []*skel.CmdArgs{args(), other} {
			if err := b.plugin.Del(a); err != nil {
				t.Errorf("DEL without a daemon: %v", err)
			}
		}
	}
	if left := b.links.HostLinks(); len(left) > 0 {
		t.Errorf("DEL without a daemon leaves %v", left)
	}
	b.daemon.fail = nil
	b.add(t, other) // the same container again, as podman does
	released := []string{}
	release := func(h holder.Holder) error { released = append(released, h.String()); return nil }
	if n, err := deletions.Open(socket).Drain(func(holder.Holder) error { return errNoDaemon }); n != 0 || err == nil {
		t.Errorf("Drain that fails: %d, %v", n, err)
	}
	if n, err := deletions.Open(socket).Drain(release); n != 1 || err != nil || released[0] != owner {
		t.Errorf("Drain = %d, %v; released %v, want %s alone", n, err, released, owner)
	}
	if n, err := deletions.Open(socket).Drain(release); n != 0 || err != nil {
		t.Errorf("the second Drain = %d, %v", n, err)
	}
}

// TestAdmission: a pod has no interface before its policies are in force.
func TestAdmission(t *testing.T) {
	pod := func() *skel.CmdArgs {
		a := args(`{"policy": "/run/weft/kube.sock"}`)
		a.Args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_UID=u"
		return a
	}
	b := newBench()
	res := b.add(t, pod())
	want := []api.Admission{{Namespace: "ns", Name: "p", UID: "u", Owner: owner}}
	for _, ip := range res.IPs {
		addr, _ := netip.AddrFromSlice(ip.Address.IP)
		want[0].IPs = append(want[0].IPs, addr.Unmap())
	}
	want[0].MAC = ether.FromIP(want[0].IPs[0])
	if diff := cmp.Diff(want, b.daemon.admitted, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct {
		err  error
		code uint
	}{
		{errNoDaemon, types.ErrTryAgainLater},
		{&api.Problem{Kind: api.KindTimeout, Detail: "policies are not in force"}, types.ErrTryAgainLater},
	} {
		b := newBench()
		b.daemon.admitErr = c.err
		wantCode(t, "ADD", b.plugin.Add(pod()), c.code)
		b.wantNothing(t, "an ADD before its policies are in force")
		wantCode(t, "STATUS", b.plugin.Status(pod()), types.ErrPluginNotAvailable)
		if err := b.plugin.Add(args()); err != nil {
			t.Errorf("a container of no pod: %v", err)
		}
	}
}

func TestDelFails(t *testing.T) {
	b := newBench()
	b.add(t, args())
	b.links.Fail(linktest.OpDetach, syscall.EPERM)
	wantCode(t, "DEL", b.plugin.Del(args()), types.ErrInternal)
	if got := b.daemon.owners(); len(got) != 1 {
		t.Error("the lease ended although the link exists")
	}
}

func TestCheckFails(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(b *bench)
		code uint
	}{
		"link gone":  {func(b *bench) { _ = b.links.Detach(context.Background(), netns, "eth0", "") }, types.ErrInternal},
		"lease gone": {func(b *bench) { _ = b.daemon.Release(context.Background(), owner, "") }, types.ErrInternal},
		"netns gone": {func(b *bench) { b.links.RemoveNetns(netns) }, types.ErrInvalidNetNS},
		"no daemon":  {func(b *bench) { b.daemon.fail = errNoDaemon }, types.ErrTryAgainLater},
		"other address": {func(b *bench) {
			b.daemon.leases[owner] = []netip.Prefix{netip.MustParsePrefix("10.32.0.77/12")}
		}, types.ErrInternal},
	} {
		b := newBench()
		b.add(t, args())
		c.set(b)
		wantCode(t, name, b.plugin.Check(args(`{"prevResult": `+b.out.String()+`}`)), c.code)
	}
	b := newBench()
	b.add(t, args())
	wantCode(t, "no prevResult", b.plugin.Check(args()), types.ErrInvalidNetworkConfig)
	wantCode(t, "someone's prevResult", b.plugin.Check(args(`{"prevResult": {"cniVersion": "1.1.0"}}`)), types.ErrInvalidNetworkConfig)
	changed := strings.Replace(b.out.String(), ether.FromIP(netip.MustParseAddr("10.32.0.2")).String(), "02:00:00:00:00:01", 1)
	wantCode(t, "other MAC", b.plugin.Check(args(`{"prevResult": `+changed+`}`)), types.ErrInternal)
}

func TestStatus(t *testing.T) {
	b := newBench()
	if err := b.plugin.Status(args()); err != nil {
		t.Error(err)
	}
	full := api.IPAMRange{CIDR: netip.MustParsePrefix("10.32.0.0/12"), Owners: []api.IPAMOwner{
		{Addresses: 8, Reachable: true}, {Addresses: 8, Free: 8}, // the second node is not reachable
	}}
	b.daemon.ipam.Ranges = []api.IPAMRange{full}
	if e := wantCode(t, "no address left", b.plugin.Status(args()), types.ErrPluginNotAvailable); !strings.Contains(e.Msg, "10.32.0.0/12") {
		t.Errorf("error %+v", e)
	}
	full.Owners[1].Reachable = true
	if err := b.plugin.Status(args()); err != nil {
		t.Errorf("another node has addresses: %v", err)
	}
	b.daemon.ready = false
	e := wantCode(t, "not ready", b.plugin.Status(args()), types.ErrPluginNotAvailable)
	if !strings.Contains(e.Msg, "waiting") || !strings.Contains(e.Details, "start them") {
		t.Errorf("error %+v", e)
	}
	b.daemon.fail = errNoDaemon
	if e := wantCode(t, "no daemon", b.plugin.Status(args()), types.ErrPluginNotAvailable); !strings.Contains(e.Msg, "weft.sock") {
		t.Errorf("the message %q does not name the socket", e.Msg)
	}
}
