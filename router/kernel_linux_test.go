package router

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"weft/internal/ether"
	"weft/router/session"
	"weft/router/underlay"
	"weft/tap"
	"weft/tap/taptest"
)

// TestKernel carries frames with real TAPs and sockets: three nodes in one namespace, connected by its loopback.
func TestKernel(t *testing.T) {
	for _, tt := range []struct {
		name    string
		plain   bool
		secrets []session.Secret
	}{
		{"offload", false, nil}, {"plain", true, nil}, {"sealed", false, modes["sealed"]}, {"plain, sealed", true, modes["sealed"]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			taptest.InNamespace(t)
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				t.Fatal(err)
			}
			if err := netlink.LinkSetUp(lo); err != nil {
				t.Fatal(err)
			}
			host := &net.IPNet{IP: addrOf(0).Addr().AsSlice(), Mask: net.CIDRMask(32, 32)}
			if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: host}); err != nil {
				t.Fatal(err)
			}
			hosts := runKernel(t, tt.plain, tt.secrets, "wd-a", "wd-b", "wd-c")
			long := func(dst ether.Addr, src ether.Addr) []byte {
				return append(frame(dst, src, 'x'), make([]byte, 1422-50)...)
			}
			for _, tt := range []struct {
				from int
				f    []byte
				to   []int
			}{
				{0, long(ether.Broadcast, mac(1)), []int{1, 2}},
				{1, long(mac(1), mac(2)), []int{0}},
				{0, long(mac(2), mac(1)), []int{1}},
			} {
				if err := hosts[tt.from].Send(tt.f); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				for _, to := range tt.to {
					if got, err := hosts[to].Receive(ctx); err != nil || !bytes.Equal(got, tt.f) {
						t.Fatalf("node %d received %x, %v; want %x", to, got, err, tt.f)
					}
				}
				cancel()
			}
		})
	}
}

// runKernel runs an engine on a TAP of each name, and returns the hosts' ends of the TAPs.
func runKernel(t *testing.T, plain bool, secrets []session.Secret, names ...string) (hosts []*taptest.Socket) {
	t.Helper()
	var engines []*Engine
	var peers []Peer
	for i, name := range names {
		dev, err := tap.Open(tap.Config{Name: name, MTU: 1438, Queues: 1, Plain: plain})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { dev.Close() })
		conn, err := underlay.Listen(underlay.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		p := peerOf(i)
		p.Addr = netip.AddrPortFrom(addrOf(0).Addr(), conn.LocalAddr().Port())
		e, err := New(Config{
			Private: identityOf(i).private, Offer: anyCipher, Secrets: secrets,
			Device: dev, Conns: []underlay.Conn{conn}, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		hosts, engines, peers = append(hosts, taptest.NewSocket(t, name)), append(engines, e), append(peers, p)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	for _, e := range engines {
		e.SetPeers(peers)
		go func() { ended <- e.Run(ctx) }()
	}
	t.Cleanup(func() {
		cancel()
		for range engines {
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	})
	return hosts
}
