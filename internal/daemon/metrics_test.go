package daemon

import (
	"context"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"weft/internal/dns"
	"weft/internal/ether"
	"weft/internal/peer"
	"weft/internal/simnet"
	"weft/ipam"
	"weft/ipam/store/storetest"
	"weft/mesh"
	"weft/mesh/topology"
	"weft/router"
	"weft/router/session"
	"weft/router/underlay"
	"weft/router/vxlan"
	"weft/tap/taptest"
)

// silent is an ipam.Gossip that nobody hears.
type silent struct{}

func (silent) Broadcast([]byte)              {}
func (silent) Unicast(peer.ID, []byte) error { return nil }

// busyNode is a node that has something to say in every metric: engines without a kernel, of which the router has a session
// with another node's, over a network that duplicates what it carries.
type busyNode struct {
	*Daemon
	members []mesh.Member
}

// inMetricsLab runs test with the metrics of a busy node, in a bubble of its own.
func inMetricsLab(t *testing.T, test func(t *testing.T, n *busyNode, registry *prometheus.Registry)) {
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New(1)
		network.SetDefault(simnet.Link{Duplicate: 1})
		a, b := newMetricsLabNode(t, network, 1), newMetricsLabNode(t, network, 2)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		for _, pair := range [][2]*labNode{{a, b}, {b, a}} {
			pair[0].engine.SetPeers([]router.Peer{pair[1].peer})
			go func() { ended <- pair[0].engine.Run(ctx) }()
		}
		defer func() {
			cancel()
			for range 2 {
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		}()
		for _, pair := range [][2]*labNode{{a, b}, {b, a}} {
			frame := make([]byte, 64)
			copy(frame, ether.Broadcast[:])
			copy(frame[6:], []byte{0x0a, 0, 0, 0, 0, 1})
			pair[0].device.Inject(frame)
			if _, err := pair[1].device.Next(ctx); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait() // the duplicates have come as well
		n := newBusyNode(t, a, b)
		sample := vxlan.Sample{RxFrames: 1, RxBytes: 100, TxFrames: 2, TxBytes: 200, TxDropped: 3}
		test(t, n, n.registry(func() []mesh.Member { return n.members }, func() (vxlan.Sample, bool) { return sample, true }))
	})
}

// labNode is a router between a device and a network in memory.
type labNode struct {
	identity mesh.Identity
	engine   *router.Engine
	device   *taptest.Device
	peer     router.Peer
}

func newMetricsLabNode(t *testing.T, network *simnet.Network, i byte) *labNode {
	t.Helper()
	identity, err := mesh.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, i}), DefaultPort+1)
	conn, err := network.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	n := &labNode{identity: identity, device: taptest.New(taptest.Config{}), peer: router.Peer{ID: identity.ID, Public: identity.Public, Addr: addr}}
	n.engine, err = router.New(router.Config{
		Private: identity.Private(), Cluster: clusterName, Offer: session.NewOffer(0, true),
		Device: n.device, Conns: []underlay.Conn{conn}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// newBusyNode returns a Daemon around one of two routers, with members that are reached in every way.
func newBusyNode(t *testing.T, self, other *labNode) *busyNode {
	t.Helper()
	targets, err := mesh.LoadTargets(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cfg := goodConfig()
	cfg.Version = "v1"
	log := slog.New(slog.DiscardHandler)
	d := &Daemon{cfg: cfg, log: log, identity: self.identity, mtu: 1422, advertise: self.peer.Addr.Addr()}
	d.reach.d = d
	d.initial(cfg, nil)
	if d.mesh, err = mesh.New(mesh.Config{
		Identity: self.identity, Name: cfg.Name, Advertise: netip.AddrPortFrom(d.advertise, DefaultPort), Targets: targets,
		Transport: new(memberlist.MockNetwork).NewTransport(cfg.Name), Logger: log,
	}); err != nil {
		t.Fatal(err)
	}
	if d.ipam, err = ipam.New(ipam.Config{
		Self: self.identity.ID, Ranges: cfg.Ranges, InitPeers: 1, Store: storetest.NewMemory(), Gossip: silent{}, Logger: log,
	}); err != nil {
		t.Fatal(err)
	}
	if d.names, err = dns.NewRegistry(dns.RegistryConfig{Self: self.identity.ID}); err != nil {
		t.Fatal(err)
	}
	if d.dns, err = dns.New(dns.Config{Names: d.names, Logger: log}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ipam.Allocate(t.Context(), "pod", cfg.Ranges[0]); err != nil {
		t.Fatal(err)
	}
	p := &plane{d: d, router: self.engine}
	p.kernel.plane = p
	p.kernel.current.Store(&kernelRun{engine: kernelOf{other.identity.ID: true}})
	d.plane.Store(p)
	addr := other.peer.Addr
	return &busyNode{d, []mesh.Member{
		{ID: self.identity.ID, Name: "a", Self: true, State: mesh.StateAlive, Addr: d.advertise, Data: DefaultPort + 1},
		{ID: other.identity.ID, Name: "b", State: mesh.StateAlive, Addr: addr.Addr(), Data: addr.Port(), Route: topology.Route{Hops: 1}},
		{ID: peer.ID{3}, Name: "c", State: mesh.StateAlive, Addr: addr.Addr(), Data: 7, Route: topology.Route{Hops: 2, Via: other.identity.ID}},
		{ID: peer.ID{4}, Name: "d", State: mesh.StateAlive, Addr: addr.Addr(), Data: 8},
		{ID: peer.ID{5}, Name: "e", State: mesh.StateDead, Addr: addr.Addr(), Data: 9},
	}}
}

// kernelOf is a kernelController that carries the peers in it.
type kernelOf map[peer.ID]bool

func (k kernelOf) Run(ctx context.Context) error { <-ctx.Done(); return nil }
func (k kernelOf) SetPeers([]vxlan.Peer)         {}
func (k kernelOf) Carries(id peer.ID) bool       { return k[id] }
func (k kernelOf) Peers() []vxlan.PeerStatus     { return nil }

// TestMetricsOfTheNode: what only the whole node knows.
func TestMetricsOfTheNode(t *testing.T) {
	inMetricsLab(t, func(t *testing.T, n *busyNode, registry *prometheus.Registry) {
		b := n.members[1].ID.String()
		c, d := peer.ID{3}.String(), peer.ID{4}.String()
		want := map[string]float64{
			`weft_build_info{goversion="` + runtime.Version() + `",version="v1"}`: 1,
			`weft_ready{}`:              0, // the rules were not tried
			`weft_warnings{}`:           2, // there is no secret, and the device in memory takes no superframes
			`weft_kernel_path{}`:        1,
			`weft_kernel_drops_total{}`: 3,
			`weft_kernel_frames_total{direction="transmit"}`: 2, `weft_kernel_frames_total{direction="receive"}`: 1,
			`weft_kernel_bytes_total{direction="transmit"}`: 200, `weft_kernel_bytes_total{direction="receive"}`: 100,
			`weft_peer_info{addr="192.0.2.2:6784",name="b",peer="` + b + `"}`: 1,
			`weft_peer_info{addr="192.0.2.2:7",name="c",peer="` + c + `"}`:    1,
			`weft_peer_info{addr="192.0.2.2:8",name="d",peer="` + d + `"}`:    1,
			`weft_peer_link{link="direct",peer="` + b + `"}`:                  1, `weft_peer_link{link="relay",peer="` + b + `"}`: 0, `weft_peer_link{link="none",peer="` + b + `"}`: 0,
			`weft_peer_link{link="direct",peer="` + c + `"}`: 0, `weft_peer_link{link="relay",peer="` + c + `"}`: 1, `weft_peer_link{link="none",peer="` + c + `"}`: 0,
			`weft_peer_link{link="direct",peer="` + d + `"}`: 0, `weft_peer_link{link="relay",peer="` + d + `"}`: 0, `weft_peer_link{link="none",peer="` + d + `"}`: 1,
			`weft_peer_kernel{peer="` + b + `"}`: 1, `weft_peer_kernel{peer="` + c + `"}`: 0, `weft_peer_kernel{peer="` + d + `"}`: 0,
		}
		got := map[string]float64{}
		for _, s := range gatherSeries(t, registry) {
			for _, prefix := range []string{"weft_build", "weft_ready", "weft_warnings", "weft_kernel", "weft_peer_info", "weft_peer_link", "weft_peer_kernel"} {
				if strings.HasPrefix(s.name, prefix) {
					got[s.String()] = s.value
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("metrics (-want +got):\n%s", diff)
		}
	})
}

// TestMetricsBeforeTheDataPlane: a scrape while the node starts has what there is.
func TestMetricsBeforeTheDataPlane(t *testing.T) {
	inMetricsLab(t, func(t *testing.T, n *busyNode, _ *prometheus.Registry) {
		n.plane.Store(nil)
		registry := n.registry(n.mesh.Members, n.kernelSample)
		if n, err := testutil.GatherAndCount(registry, "weft_kernel_path", "weft_ready", "weft_ipam_ready", "weft_drops_total"); err != nil || n != 3 {
			t.Errorf("%d series, %v; want path and ready, and nothing of the router", n, err)
		}
	})
}

// TestMetricsLint: all that a node has to say, as Prometheus would have it.
func TestMetricsLint(t *testing.T) {
	inMetricsLab(t, func(t *testing.T, _ *busyNode, registry *prometheus.Registry) {
		problems, err := testutil.GatherAndLint(registry)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	})
}
