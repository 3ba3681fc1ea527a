package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/api"
	"weft/internal/dockerapi"
	"weft/internal/ether"
	"weft/internal/leases/holder"
	"weft/internal/nettest/labtest"
)

// call sends a request to the plugin as Docker does, and returns the answer.
func (b *bench) call(t testing.TB, name, body string) (answer map[string]any, failure string) {
	t.Helper()
	w := httptest.NewRecorder()
	b.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/"+name, strings.NewReader(body)))
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%s: %v in %s", name, err, w.Body)
	}
	failure, _ = answer["Err"].(string)
	if (failure != "") != (w.Code != http.StatusOK) {
		t.Errorf("%s: status %d with %s", name, w.Code, w.Body)
	}
	return answer, failure
}

// must is call for a request that succeeds.
func (b *bench) must(t testing.TB, name, body string) map[string]any {
	t.Helper()
	answer, failure := b.call(t, name, body)
	if failure != "" {
		t.Fatalf("%s: %s", name, failure)
	}
	return answer
}

const (
	mac       = "02:42:0a:20:01:05"
	macOption = `"Options": {"com.docker.network.endpoint.macaddress": "` + mac + `"}`
	ownNet    = `{"NetworkID": "net1", "IPv4Data": [{"AddressSpace": "weft", "Pool": "10.32.1.0/24"}]}`
	endpoint1 = `{"NetworkID": "net1", "EndpointID": "end1", "Interface": {"Address": "10.32.1.2/24", "MacAddress": "` + mac + `"}}`
)

// start does what Docker does for a container.
func (b *bench) start(t testing.TB) {
	t.Helper()
	b.must(t, "IpamDriver.RequestPool", `{"AddressSpace": "weft", "Pool": "10.32.1.0/24"}`)
	b.must(t, "IpamDriver.RequestAddress", `{"PoolID": "10.32.1.0/24", "Options": {"RequestAddressType": "com.docker.network.gateway"}}`)
	b.must(t, "NetworkDriver.CreateNetwork", ownNet)
	if got := b.must(t, "IpamDriver.RequestAddress", `{"PoolID": "10.32.1.0/24", `+macOption+`}`)["Address"]; got != "10.32.1.2/24" {
		t.Fatalf("address %v", got)
	}
	b.must(t, "NetworkDriver.CreateEndpoint", endpoint1)
}

// TestLife: a network with a container is made, survives a restart of the plugin, and leaves nothing behind.
func TestLife(t *testing.T) {
	b := newBench(t)
	b.start(t)
	h := holder.ForDocker(ether.Addr{2, 0x42, 10, 32, 1, 5})
	want := api.GuardRequest{
		Owner: h.String(), MAC: h.MAC, IPs: []netip.Addr{netip.MustParseAddr("10.32.1.2")}, Guard: api.GuardPods,
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.32.1.0/24")}, HostOnly: true,
	}
	if diff := cmp.Diff(want, b.daemon.guards[h.String()], cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("the guard (-want +got):\n%s", diff)
	}
	b.open(t)
	joined := b.must(t, "NetworkDriver.Join", `{"NetworkID": "net1", "EndpointID": "end1", "SandboxKey": "/run/docker/netns/first"}`)
	if diff := cmp.Diff(map[string]any{
		"InterfaceName": map[string]any{"SrcName": "vwd02420a200105", "DstPrefix": "eth"},
		"StaticRoutes":  []any{map[string]any{"Destination": "224.0.0.0/4", "RouteType": 1.0}},
	}, joined); diff != "" {
		t.Errorf("Join (-want +got):\n%s", diff)
	}
	second := endpoint{ID: "end2", Network: "net1", MAC: ether.Addr{2, 2}, Addrs: []netip.Addr{netip.MustParseAddr("10.32.1.3")}}
	if err := b.state.putEndpoint(second); err != nil {
		t.Fatal(err)
	}
	join2 := `{"EndpointID": "end2", "SandboxKey": "/run/docker/netns/first"}`
	if again := b.must(t, "NetworkDriver.Join", join2); again["StaticRoutes"] != nil {
		t.Errorf("two routes for multicast: %v", again)
	}
	b.must(t, "NetworkDriver.Leave", `{"EndpointID": "end1"}`)
	if again := b.must(t, "NetworkDriver.Join", join2); again["StaticRoutes"] == nil {
		t.Error("no route for multicast after the first network was left")
	}
	b.must(t, "NetworkDriver.DeleteEndpoint", `{"EndpointID": "end2"}`)
	// While its interface exists, an address stays leased, and a MAC is taken.
	b.must(t, "IpamDriver.ReleaseAddress", `{"PoolID": "10.32.1.0/24", "Address": "10.32.1.2"}`)
	if _, failure := b.call(t, "IpamDriver.RequestAddress", `{"PoolID": "10.32.1.0/24", `+macOption+`}`); !strings.Contains(failure, mac) {
		t.Errorf("the same MAC again: %q", failure)
	}
	if len(b.daemon.leases) != 2 {
		t.Errorf("leases %v", b.daemon.leases)
	}
	b.must(t, "NetworkDriver.Leave", `{"NetworkID": "net1", "EndpointID": "end1"}`)
	for range 2 {
		b.must(t, "NetworkDriver.DeleteEndpoint", `{"NetworkID": "net1", "EndpointID": "end1"}`)
		b.must(t, "IpamDriver.ReleaseAddress", `{"PoolID": "10.32.1.0/24", "Address": "10.32.1.2"}`)
		b.must(t, "NetworkDriver.DeleteNetwork", `{"NetworkID": "net1"}`)
		b.must(t, "IpamDriver.ReleaseAddress", `{"PoolID": "10.32.1.0/24", "Address": "10.32.1.1"}`)
		b.must(t, "IpamDriver.ReleasePool", `{"PoolID": "10.32.1.0/24"}`)
	}
	b.nothing(t)
}

// nothing checks that nothing is left.
func (b *bench) nothing(t testing.TB) {
	t.Helper()
	if len(b.daemon.leases)+len(b.daemon.guards)+len(b.daemon.names)+len(b.links.exist)+len(b.state.networks())+len(b.state.endpoints()) > 0 {
		t.Errorf("left: leases %v, guards %v, names %v, links %v, networks %v, endpoints %v", b.daemon.leases, b.daemon.guards, b.daemon.names,
			b.links.exist, b.state.networks(), b.state.endpoints())
	}
}

// TestFailedEndpoint: what was set up for an interface that cannot be made is undone.
func TestFailedEndpoint(t *testing.T) {
	for name, set := range map[string]func(*bench){
		"no bridge": func(b *bench) { b.links.fail = errors.New("no such bridge") },
		"no guard": func(b *bench) {
			b.daemon.fail["Guard"] = problem(api.KindRefused, "the pod's addresses cannot be enforced")
		},
	} {
		b := newBench(t)
		b.must(t, "NetworkDriver.CreateNetwork", ownNet)
		b.must(t, "IpamDriver.RequestAddress", `{"PoolID": "10.32.1.0/24", "Address": "10.32.1.2", `+macOption+`}`)
		set(b)
		if _, failure := b.call(t, "NetworkDriver.CreateEndpoint", endpoint1); !strings.HasPrefix(failure, "weft: ") {
			t.Errorf("%s: %q", name, failure)
		}
		b.must(t, "IpamDriver.ReleaseAddress", `{"PoolID": "10.32.1.0/24", "Address": "10.32.1.2"}`)
		b.must(t, "NetworkDriver.DeleteNetwork", `{"NetworkID": "net1"}`)
		b.nothing(t)
	}
}

// TestSameMAC: a second endpoint with the MAC of a container is refused, and the container keeps its interface, guard and lease.
func TestSameMAC(t *testing.T) {
	b := newBench(t)
	b.start(t)
	leases, guards := len(b.daemon.leases), b.daemon.guards["docker/"+mac]
	again := `{"NetworkID": "net1", "EndpointID": "end2", "Interface": {"Address": "10.32.1.3/24", "MacAddress": "` + mac + `"}}`
	if _, failure := b.call(t, "NetworkDriver.CreateEndpoint", again); !strings.Contains(failure, "has the MAC "+mac) {
		t.Errorf("%q", failure)
	}
	b.must(t, "NetworkDriver.CreateEndpoint", endpoint1) // Docker repeats a request without an answer
	if len(b.links.exist) != 1 || len(b.daemon.leases) != leases || !slices.Equal(b.daemon.guards["docker/"+mac].IPs, guards.IPs) {
		t.Errorf("links %v, leases %v, guard %v", b.links.exist, b.daemon.leases, b.daemon.guards)
	}
	end, free := b.busy.begin(ether.Addr{2, 7})
	if _, twice := b.busy.begin(ether.Addr{2, 7}); !free || twice {
		t.Error("two endpoints with one MAC are made at once")
	}
	end()
}

// TestReservedPools: a subnet is reserved from the request for it until its network is there, or is given up.
func TestReservedPools(t *testing.T) {
	b := newBench(t)
	request := `{"AddressSpace": "weft", "Pool": "10.32.1.0/24"}`
	b.must(t, "IpamDriver.RequestPool", request)
	if _, failure := b.call(t, "IpamDriver.RequestPool", request); !strings.Contains(failure, "is being created") {
		t.Errorf("%q", failure)
	}
	one := b.must(t, "IpamDriver.RequestPool", `{"AddressSpace": "weft"}`)
	two := b.must(t, "IpamDriver.RequestPool", `{"AddressSpace": "weft"}`)
	if one["Pool"] == two["Pool"] {
		t.Errorf("two networks get %v", one["Pool"])
	}
	b.must(t, "IpamDriver.ReleasePool", `{"PoolID": "10.32.1.0/24"}`)
	b.must(t, "IpamDriver.RequestPool", request)
	b.must(t, "NetworkDriver.CreateNetwork", ownNet)
	if _, failure := b.call(t, "IpamDriver.RequestPool", request); !strings.Contains(failure, "overlaps the network") {
		t.Errorf("%q", failure)
	}
}

// TestDaemonAway: without the daemon requests say so, an interface is removed all the same, and its lease ends when the daemon is back.
func TestDaemonAway(t *testing.T) {
	b := newBench(t)
	b.start(t)
	b.daemon.away = true
	for _, request := range [][2]string{
		{"IpamDriver.RequestPool", `{"AddressSpace": "weft"}`},
		{"IpamDriver.RequestAddress", `{"PoolID": "10.32.1.0/24", "Options": {"com.docker.network.endpoint.macaddress": "02:42:0a:20:01:06"}}`},
		{"NetworkDriver.CreateNetwork", `{"NetworkID": "net2", "IPv4Data": [{"AddressSpace": "weft", "Pool": "10.32.2.0/24"}]}`},
		{"NetworkDriver.CreateEndpoint", strings.NewReplacer("end1", "end2", mac, "02:42:0a:20:01:06").Replace(endpoint1)},
	} {
		if _, failure := b.call(t, request[0], request[1]); !strings.Contains(
			failure,
			"no weft daemon answers at /run/weft/weft.sock. Start it.",
		) {
			t.Errorf("%s: %q", request[0], failure)
		}
	}
	b.must(t, "NetworkDriver.DeleteEndpoint", `{"NetworkID": "net1", "EndpointID": "end1"}`)
	if len(b.links.exist) > 0 {
		t.Errorf("the interface is left: %v", b.links.exist)
	}
	var queued []string
	if _, err := b.cfg.Deletions.Drain(func(h holder.Holder) error { queued = append(queued, h.String()); return nil }); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"docker/" + mac}, queued); diff != "" {
		t.Errorf("to be ended later (-want +got):\n%s", diff)
	}
}

// TestForgottenAddress: the lease of an endpoint that Docker has forgotten does not keep a container from its address.
func TestForgottenAddress(t *testing.T) {
	b := newBench(t)
	old := api.Lease{Owner: "docker/02:42:00:00:00:01", IP: netip.MustParsePrefix("10.32.1.7/24"), Since: time.Now().Add(-time.Hour)}
	b.daemon.leases = []api.Lease{old}
	request := `{"PoolID": "10.32.1.0/24", "Address": "10.32.1.7", ` + macOption + `}`
	b.links.exist[holder.Parse(old.Owner).AttachLink()] = ""
	if _, failure := b.call(t, "IpamDriver.RequestAddress", request); !strings.Contains(failure, old.Owner) {
		t.Errorf("the address of a running container: %q", failure)
	}
	b.links.exist = map[string]string{}
	b.must(t, "IpamDriver.RequestAddress", request)
	if len(b.daemon.leases) != 1 || b.daemon.leases[0].Owner != "docker/"+mac {
		t.Errorf("leases %v", b.daemon.leases)
	}
}

// TestSameGateway: several nodes reserve the same gateway for one network; another holder's address is refused.
func TestSameGateway(t *testing.T) {
	b := newBench(t)
	request := `{"PoolID": "10.32.1.0/24", "Address": "10.32.1.1", "Options": {"RequestAddressType": "com.docker.network.gateway"}}`
	b.daemon.fail["Allocate"] = problem(api.KindRefused, `10.32.1.1 is leased to "docker/gateway/10.32.1.0/24" on node b`)
	if got := b.must(t, "IpamDriver.RequestAddress", request)["Address"]; got != "10.32.1.1/24" {
		t.Errorf("address %v", got)
	}
	b.daemon.fail["Allocate"] = problem(api.KindRefused, `10.32.1.1 is leased to "x" on node b`)
	if _, failure := b.call(t, "IpamDriver.RequestAddress", request); !strings.Contains(failure, `"x" on node b`) {
		t.Errorf("%q", failure)
	}
}

// TestChoosePool: without --subnet a network gets the last free part of the range, or that of the one network that this host lacks.
func TestChoosePool(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*bench)
		body string
		want string // the pool, or a part of the error
	}{
		"the first":      {func(*bench) {}, `{}`, "10.47.255.0/24"},
		"IPv6":           {func(*bench) {}, `{"V6": true}`, "fd32::ff:ff00:0/104"},
		"one of another": {func(b *bench) { b.daemon.elsewhere("mynet", "10.40.0.0/16", "b") }, `{}`, "10.40.0.0/16"},
		"two of others": {func(b *bench) {
			b.daemon.elsewhere("x", "10.47.255.0/24", "b")
			b.daemon.elsewhere("y", "10.33.0.0/24", "c")
		}, `{}`,
			"10.47.255.0/24 (x on b), 10.33.0.0/24 (y on c). Name the one of your network with --subnet, or a new one such as 10.47.254.0/24"},
		"one on two": {func(b *bench) {
			b.daemon.elsewhere("x", "10.47.255.0/24", "b")
			b.daemon.elsewhere("x", "10.47.255.0/24", "c")
		}, `{}`, "10.47.255.0/24"},
		"an own one": {func(b *bench) {
			b.own(t, "10.47.255.0/24")
			b.daemon.elsewhere("mynet", "10.47.255.0/24", "b")
		}, `{}`, "10.47.254.0/24"},
		"a large own one": {func(b *bench) { b.own(t, "10.47.0.0/16") }, `{}`, "10.46.255.0/24"},
		"no room":         {func(b *bench) { b.own(t, "10.32.0.0/12") }, `{}`, "no part of 10.32.0.0/12 is free"},
		"of another kind": {func(b *bench) { b.daemon.elsewhere("mynet", "192.168.0.0/24", "b") }, `{}`, "10.47.255.0/24"},
	} {
		b := newBench(t)
		c.set(b)
		body := strings.Replace(c.body, "{", `{"AddressSpace": "weft"`, 1)
		body = strings.Replace(body, `"weft""`, `"weft", "`, 1)
		answer, failure := b.call(t, "IpamDriver.RequestPool", body)
		if got, _ := answer["Pool"].(string); got != c.want && (failure == "" || !strings.Contains(failure, c.want)) {
			t.Errorf("%s: %v, %s; want %s", name, answer, failure, c.want)
		}
	}
}

// own adds a network of this host.
func (b *bench) own(t testing.TB, subnet string) {
	t.Helper()
	if _, err := b.state.putNetwork(network{ID: subnet, Subnets: []netip.Prefix{netip.MustParsePrefix(subnet)}}); err != nil {
		t.Fatal(err)
	}
}

// TestSync: running containers have their names, and what Docker does not know any more is ended; a container that failed because of weft
// is started, and no other one.
func TestSync(t *testing.T) {
	b := newBench(t)
	b.start(t)
	b.cfg.Engine = b.engine
	b.engine.networks = []dockerapi.Network{{ID: "net1", Name: "My_Net", Driver: "weft"}}
	running := dockerapi.Container{ID: "0123456789abcdef", Name: "web_1", Running: true, Endpoints: []dockerapi.Endpoint{
		{NetworkID: "net1", ID: "end1", MAC: ether.Addr{2, 0x42, 10, 32, 1, 5}, Addrs: []netip.Addr{netip.MustParseAddr("10.32.1.2")},
			Aliases: []string{"shop", "0123456789ab", "___"}},
		{NetworkID: "other", ID: "end9", MAC: ether.Addr{2, 9}, Addrs: []netip.Addr{netip.MustParseAddr("172.17.0.2")}},
	}}
	b.engine.containers = []dockerapi.Container{
		running,
		{ID: "f1", RestartPolicy: "always", Failure: "NetworkDriver.CreateEndpoint: weft: no weft daemon answers"},
		{ID: "f2", RestartPolicy: "no", Failure: "NetworkDriver.CreateEndpoint: weft: no weft daemon answers"},
		{ID: "f3", RestartPolicy: "always", Failure: "exec: not found"},
		{ID: "f5", RestartPolicy: "always", Failure: "IpamDriver.RequestAddress: weft: address in use: 10.32.1.9"},
		{ID: "f4", RestartPolicy: "unless-stopped", Failure: `plugin "weft" not found`},
	}
	b.daemon.leases = append(b.daemon.leases, // of a crash
		api.Lease{Owner: "docker/02:42:00:00:00:01", IP: netip.MustParsePrefix("10.32.1.99/24"), Since: time.Now().Add(-time.Hour)},
		api.Lease{Owner: "docker/gateway/10.32.77.0/24", IP: netip.MustParsePrefix("10.32.77.1/24"), Since: time.Now().Add(-time.Hour)},
		api.Lease{Owner: "docker/02:42:00:00:00:02", IP: netip.MustParsePrefix("10.32.1.98/24"), Since: time.Now()},
	)
	names := func() (list []string) {
		for _, n := range b.daemon.names {
			list = append(list, n.Name+" "+n.IP.String())
		}
		return list
	}
	for range 2 {
		if err := b.sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"my-net.24.networks 10.32.1.1", "shop 10.32.1.2", "web-1 10.32.1.2"}, names()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	labtest.Until(t, 10*time.Second, func() error {
		b.engine.mu.Lock()
		defer b.engine.mu.Unlock()
		if diff := cmp.Diff([]string{"f1", "f4"}, b.engine.started); diff != "" {
			return fmt.Errorf("started (-want +got):\n%s", diff)
		}
		return nil
	})
	var owners []string
	for _, l := range b.daemon.leases {
		owners = append(owners, l.Owner)
	}
	if diff := cmp.Diff([]string{"docker/gateway/10.32.1.0/24", "docker/" + mac, "docker/02:42:00:00:00:02"}, owners); diff != "" {
		t.Errorf("leases (-want +got):\n%s", diff)
	}
	running.Running = false
	b.engine.containers[0] = running
	if err := b.sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"my-net.24.networks 10.32.1.1"}, names()); diff != "" {
		t.Errorf("names of a stopped container (-want +got):\n%s", diff)
	}
}

// follow connects the plugin to an engine that has its network. It returns the endpoint of start, which was created long ago.
func (b *bench) follow(t *testing.T) endpoint {
	t.Helper()
	b.cfg.Engine = b.engine
	b.engine.networks = []dockerapi.Network{{ID: "net1", Name: "mynet", Driver: "weft"}}
	e, known := b.state.endpoint("end1")
	if e.Created = time.Now().Add(-time.Hour); !known || b.state.putEndpoint(e) != nil {
		t.Fatal("the plugin does not know the endpoint")
	}
	return e
}

// TestSlowContainer: while Docker does not answer for a container, because it starts, its interface and the names of all stay.
func TestSlowContainer(t *testing.T) {
	b := newBench(t)
	b.start(t)
	e := b.follow(t)
	b.engine.containers = []dockerapi.Container{{ID: "slow", Name: "web", Running: true, Endpoints: []dockerapi.Endpoint{
		{NetworkID: "net1", ID: "end1", MAC: e.MAC, Addrs: e.Addrs},
	}}}
	state := func() string { return fmt.Sprint(b.links.exist, len(b.daemon.names), len(b.state.endpoints())) }
	sync := func() {
		t.Helper()
		if err := b.sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	sync()
	before := state()
	b.engine.busy = "slow"
	sync()
	if got := state(); got != before {
		t.Errorf("while Docker does not answer: %s, before %s", got, before)
	}
	b.engine.busy, b.engine.containers = "", nil // a crash of Docker: the container was never started
	sync()
	if len(b.links.exist)+len(b.state.endpoints()) > 0 {
		t.Errorf("left behind: %s", state())
	}
}

// TestRestartedContainer: a container that Docker starts again during a comparison, with the same MAC, keeps its new interface and guard.
func TestRestartedContainer(t *testing.T) {
	b := newBench(t)
	b.start(t)
	e := b.follow(t)
	b.engine.containers = []dockerapi.Container{{ID: "web", Name: "web"}}
	b.engine.meanwhile = func() {
		b.must(t, "NetworkDriver.DeleteEndpoint", `{"NetworkID": "net1", "EndpointID": "end1"}`)
		b.must(t, "NetworkDriver.CreateEndpoint", strings.ReplaceAll(endpoint1, "end1", "end2"))
		b.engine.meanwhile = nil
	}
	if err := b.sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, there := b.state.endpoint("end2"); !there || len(b.links.exist) != 1 || len(b.daemon.guards) != 1 {
		t.Errorf("the new endpoint is there: %t, links %v, guards %v", there, b.links.exist, b.daemon.guards)
	}

	// Both endpoints are in the state: only the old one goes.
	e.ID = "end0"
	if err := b.state.putEndpoint(e); err != nil {
		t.Fatal(err)
	}
	if err := b.sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list := b.state.endpoints(); len(list) != 1 || list[0].ID != "end2" || len(b.links.exist) != 1 {
		t.Errorf("endpoints %v, links %v", list, b.links.exist)
	}
}

// TestCrashInAStart: what a plugin has set up that ends before it has made the interface is removed by the next one.
func TestCrashInAStart(t *testing.T) {
	b := newBench(t)
	b.start(t)
	b.must(t, "NetworkDriver.DeleteEndpoint", `{"NetworkID": "net1", "EndpointID": "end1"}`)
	b.links.crash = true
	if _, failure := b.call(t, "NetworkDriver.CreateEndpoint", endpoint1); failure == "" || len(b.daemon.guards) != 1 {
		t.Fatalf("the plugin did not end: %q, guards %v", failure, b.daemon.guards)
	}
	b.links.crash = false
	b.open(t)
	b.follow(t)
	if err := b.sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(b.daemon.guards)+len(b.state.endpoints()) > 0 {
		t.Errorf("guards %v, endpoints %v", b.daemon.guards, b.state.endpoints())
	}
}

// TestConflict: a network that disagrees with another node's is refused, with the command that helps; the one that was there first works.
func TestConflict(t *testing.T) {
	for name, c := range map[string]struct{ other, subnet, want string }{
		"another subnet": {"mynet", "10.32.2.0/24", "--subnet 10.32.2.0/24"},
		"another name":   {"yours", "10.32.1.0/25", "overlaps 10.32.1.0/25, which is the network yours on node b"},
		"the same":       {"mynet", "10.32.1.0/24", ""},
		"unrelated":      {"yours", "10.32.3.0/24", ""},
	} {
		b := newBench(t)
		b.start(t)
		b.must(t, "NetworkDriver.DeleteEndpoint", `{"EndpointID": "end1"}`)
		b.cfg.Engine = b.engine
		b.engine.networks = []dockerapi.Network{{ID: "net1", Name: "mynet", Driver: "weft"}}
		b.daemon.elsewhere(c.other, c.subnet, "b")
		if err := b.sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, failure := b.call(t, "NetworkDriver.CreateEndpoint", endpoint1)
		if (c.want == "") != (failure == "") || !strings.Contains(failure, c.want) {
			t.Errorf("%s: %q, want %q", name, failure, c.want)
		}
	}
	// Both were published before they knew of each other: that of the node with the lower ID counts.
	for node, want := range map[string]string{"\x00": "--subnet 10.32.2.0/24", "b": ""} {
		both := newBench(t)
		both.start(t)
		both.must(t, "NetworkDriver.DeleteEndpoint", `{"EndpointID": "end1"}`)
		both.cfg.Engine = both.engine
		both.engine.networks = []dockerapi.Network{{ID: "net1", Name: "mynet", Driver: "weft"}}
		if err := both.sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		both.daemon.elsewhere("mynet", "10.32.2.0/24", node)
		if err := both.sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, failure := both.call(t, "NetworkDriver.CreateEndpoint", endpoint1)
		if (want == "") != (failure == "") || !strings.Contains(failure, want) {
			t.Errorf("beside node %q: %q, want %q", node, failure, want)
		}
	}
	first := newBench(t)
	first.start(t)
	first.must(t, "NetworkDriver.DeleteEndpoint", `{"EndpointID": "end1"}`)
	first.cfg.Engine = first.engine
	first.engine.networks = []dockerapi.Network{{ID: "net1", Name: "mynet", Driver: "weft"}}
	if err := first.sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	first.daemon.elsewhere("mynet", "10.32.2.0/24", "b")
	if err := first.sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	first.must(t, "NetworkDriver.CreateEndpoint", endpoint1)
}

func TestBadState(t *testing.T) {
	path := t.TempDir() + "/docker.json"
	if err := os.WriteFile(path, []byte(`{"networks": [`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openState(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a broken file: %v", err)
	}
}

// FuzzHandler: no request makes the plugin panic, or answer with anything but JSON.
func FuzzHandler(f *testing.F) {
	names := []string{
		"Plugin.Activate", "NetworkDriver.GetCapabilities", "NetworkDriver.CreateNetwork", "NetworkDriver.DeleteNetwork",
		"NetworkDriver.CreateEndpoint",
		"NetworkDriver.DeleteEndpoint", "NetworkDriver.Join", "NetworkDriver.Leave", "IpamDriver.RequestPool", "IpamDriver.RequestAddress",
		"IpamDriver.ReleaseAddress", "IpamDriver.GetCapabilities",
	}
	for _, seed := range []string{
		ownNet, endpoint1, `null`, ``, `{`, `{"PoolID": "10.32.1.0/24,10.0.0.0/0", ` + macOption + `}`,
		`{"AddressSpace": "weft", "Pool": "::/0", "V6": true}`,
		`{"AddressSpace": "weft", "Pool": "10.32.1.0/24", "SubPool": "10.32.1.0/33"}`,
		`{"NetworkID": "net1", "EndpointID": "e", "Interface": {}}`,
		`{"NetworkID": "x", "Options": {"com.docker.network.generic": {"weft.guard": 1, "com.docker.network.driver.mtu": null}}}`,
		`{"NetworkID": "x", "IPv4Data": [{"AddressSpace": "weft", "Pool": "10.32.0.0/12"}, {"Pool": "fd32::/80"}]}`,
		`{"PoolID": "fd32::/64", "Address": "fd32::1"}`, `{"PoolID": "0.0.0.0/0", "Address": "255.255.255.255"}`,
	} {
		for i := range names {
			f.Add(i, seed)
		}
	}
	f.Fuzz(func(t *testing.T, i int, body string) {
		b := newBench(t)
		b.must(t, "NetworkDriver.CreateNetwork", ownNet)
		for range 2 {
			if _, failure := b.call(t, names[uint(i)%uint(len(names))], body); strings.Contains(failure, "fault") {
				t.Errorf("%s: %s", body, failure)
			}
		}
	})
}
