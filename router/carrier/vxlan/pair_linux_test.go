package vxlan_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"weft/internal/ether"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
	"weft/internal/peer"
	"weft/router/carrier"
	"weft/router/carrier/carriertest"
	"weft/router/carrier/framewatch"
	"weft/router/carrier/vxlan"
)

const (
	pairVNI = 0x123456
	group   = 39551
)

var token = carrier.Token{1, 2, 3, 15: 16}

// pairNet is two hosts with a pair, of which the first one begins.
type pairNet struct {
	v6 bool // the pair is on IPv6, although the devices are on IPv4

	mu    sync.Mutex
	nodes [2]*carriertest.Host // guarded by mu
	devs  [2]*pairDevice       // guarded by mu
}

// pairDevice is a device that has the peer of the pair let in at once.
type pairDevice struct {
	*vxlan.Device
	net    *pairNet
	t      *testing.T
	closed bool   // guarded by net.mu
	hellos uint64 // guarded by net.mu: sent by SetPeers
}

// ports are those of the bridge of a host.
type ports struct{ h *carriertest.Host }

func (p ports) AddPort(device string) error { return p.h.AddPorts(device) }

// config describes the device of a host, with pairs.
func (n *pairNet) config(t *testing.T, h *carriertest.Host) vxlan.Config {
	c := configOf(h)
	c.Group, c.Logger = group, slog.New(slog.NewTextHandler(t.Output(), nil))
	c.Ports = ports{h}
	return c
}

func (n *pairNet) open(t *testing.T, h *carriertest.Host) (carrier.Carrier, error) {
	d, err := vxlan.Open(t.Context(), n.config(t, h))
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	at := h.ID[0] - 1
	n.nodes[at], n.devs[at] = h, &pairDevice{Device: d, net: n, t: t}
	return n.devs[at], nil
}

// peer returns a host as the peer of the other one.
func (n *pairNet) peer(h *carriertest.Host) carrier.Peer {
	p := carrier.Peer{ID: h.ID, Addr: h.Addr, Pair: carrier.Pair{VNI: pairVNI, Token: token}}
	if n.v6 {
		p.Addr = h.Addr6()
	}
	if h.ID[0] == 2 {
		p.Pair.Port = port
	}
	return p
}

func (d *pairDevice) SetPeers(ctx context.Context, peers []carrier.Peer) (reached []carrier.Peer, err error) {
	reached, err = d.Device.SetPeers(ctx, peers)
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	begins, other := d.net.devs[0], d.net.devs[1]
	if err != nil || len(reached) == 0 || begins == nil || other == nil || begins.closed || other.closed {
		return reached, err
	}
	from, to := d.net.nodes[0].ID, d.net.nodes[1].ID
	_, known := begins.PairRemote(to)
	heard, expected := other.PairRemote(from)
	if known && expected && !heard.IsValid() && begins.Send(carrier.Probe{From: from, To: to}) == nil {
		begins.hellos++
		labtest.Until(d.t, patience, func() error {
			if heard, _ := other.PairRemote(from); !heard.IsValid() {
				return errors.New("the peer that begins is not heard")
			}
			_, err := other.FilterIntact() // waits until the filter has followed
			return err
		})
	}
	return reached, err
}

// Counts leaves out the hellos.
func (d *pairDevice) Counts() (map[peer.ID]carrier.Counts, error) {
	counts, err := d.Device.Counts()
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	for id, c := range counts {
		if d.hellos > 0 {
			c.TxBytes -= c.TxBytes / c.TxFrames * d.hellos
			c.TxFrames -= d.hellos
			counts[id] = c
		}
	}
	return counts, err
}

func (d *pairDevice) Close() error {
	d.net.mu.Lock()
	d.closed = true
	d.net.mu.Unlock()
	return d.Device.Close()
}

// TestPair: a Device passes the tests of carriers with a peer of a pair, on an underlay of either family.
func TestPair(t *testing.T) {
	for name, v6 := range map[string]bool{"same family": false, "other family": true} {
		t.Run(name, func(t *testing.T) {
			carriertest.Run(t, func(t *testing.T) carriertest.Network {
				n := &pairNet{v6: v6}
				return carriertest.Hosts(t, carriertest.Kind{
					Open: n.open, Port: "weftvx", Link: "weftvx", UDP: port, Peer: n.peer,
					Disturb: func(t *testing.T, h *carriertest.Host) {
						labtest.Run(t, h.Space, "nft", "flush", "ruleset")
						labtest.Run(t, h.Space, "ip", "link", "set", "weftvx.0", "down")
						labtest.Run(t, h.Space, "ip", "link", "set", "weftvx.0", "up")
					},
				}, false)
			})
		})
	}
}

// openPair opens both devices and has them meet, without a hello.
func openPair(t *testing.T) (n *pairNet) {
	t.Helper()
	n = &pairNet{}
	lab := labtest.New(t, nettest.Config{})
	for i := range n.nodes {
		h := carriertest.NewHost(t, lab, byte(i+1), false)
		if err := h.Do(func() error { _, err := n.open(t, h); return err }); err != nil {
			t.Fatal(err)
		}
		if err := h.AddPorts("weftvx"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := n.devs[i].Close(); err != nil {
				t.Error(err)
			}
		})
	}
	for i, d := range n.devs {
		if got, err := d.Device.SetPeers(t.Context(), []carrier.Peer{n.peer(n.nodes[1-i])}); err != nil || len(got) != 1 {
			t.Fatalf("SetPeers: %v, %v", got, err)
		}
	}
	return n
}

// hello returns a datagram of VXLAN with a probe and a token.
func hello(vni uint32, p carrier.Probe, token carrier.Token) []byte {
	to, from := vxlan.ProbeMAC(p.To), vxlan.ProbeMAC(p.From)
	b := append(vxlanHeader(vni), to[:]...)
	b = append(append(b, from[:]...), 0x88, 0xb5)
	return append(p.Append(b, 0), token[:]...)
}

// TestHellos: only the hello of the peer, from its address, is heard; the latest one decides from where and where to its frames go. Before
// and after that nothing else is let in.
func TestHellos(t *testing.T) {
	n := openPair(t)
	a, b := n.nodes[0], n.nodes[1]
	right := carrier.Probe{From: a.ID, To: b.ID, Nonce: 1}
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(a.Addr, port) }
	labtest.Run(t, a.Space, "ip", "link", "set", "weftvx.0", "down") // frees the port for the datagrams below
	labtest.Run(t, a.Space, "ip", "link", "set", "weftvx", "down")
	labtest.Run(t, a.Space, "nft", "flush", "ruleset") // which keeps other programs from sending to the peer
	for name, datagram := range map[string][]byte{
		"token": hello(pairVNI, right, carrier.Token{9}), "VNI": hello(pairVNI+1, right, token),
		"sender":   hello(pairVNI, carrier.Probe{From: peer.ID{3}, To: b.ID}, token),
		"no token": hello(pairVNI, right, token)[:8+14+carrier.ProbeLen],
		"receiver": hello(pairVNI, carrier.Probe{From: a.ID, To: peer.ID{3}}, token), "short": vxlanHeader(pairVNI),
		"frame": append(vxlanHeader(pairVNI), carriertest.Frame(ether.Broadcast, ether.Addr{2, 9}, name(0))...),
	} {
		t.Log(name)
		sendFrom(t, a.Space, at(40000), b.Addr, datagram)
	}
	labtest.Run(t, a.Space, "ip", "addr", "add", "192.168.77.99/24", "dev", "eth0")
	sendFrom(t, a.Space, netip.MustParseAddrPort("192.168.77.99:40000"), b.Addr, hello(pairVNI, right, token))
	labtest.Until(t, patience, func() error {
		counts, err := n.devs[1].FilterDrops(t.Context())
		if err == nil && counts["unknown"] < 8 {
			err = fmt.Errorf("%d of 8 were dropped", counts["unknown"])
		}
		return err
	})
	heard := func(want netip.AddrPort) {
		t.Helper()
		labtest.Until(t, patience, func() error {
			sendFrom(t, a.Space, want, b.Addr, hello(pairVNI, right, token))
			if got, _ := n.devs[1].PairRemote(a.ID); got != want {
				return fmt.Errorf("the peer is at %s, want %s", got, want)
			}
			return nil
		})
	}
	heard(at(40001))
	if n := n.devs[1].PairMoves(a.ID); n != 1 { // hellos are read in order
		t.Errorf("%d hellos were heard before the right one", n-1)
	}
	heard(at(40002))
	pod := carriertest.Socket(t, b.Pod.Space, "eth0")
	frame := func(vni uint32, content string) []byte {
		return append(vxlanHeader(vni), carriertest.Frame(ether.Broadcast, ether.Addr{2, 9}, content)...)
	}
	labtest.Until(t, patience, func() error { // the filter follows a moment later
		sendFrom(t, a.Space, at(40002), b.Addr, frame(pairVNI, "pair"))
		if got := labtest.Run(t, b.Space, "nft", "list", "set", "inet", "weft-weftvx", "pairs4"); !strings.Contains(got, "40002") {
			return errors.New("not let in: " + got)
		}
		return nil
	})
	sendFrom(t, a.Space, at(40001), b.Addr, frame(pairVNI, "former port"))
	sendFrom(t, a.Space, at(40002), b.Addr, frame(vni, "common VNI"))
	sendFrom(t, a.Space, at(0), b.Addr, frame(pairVNI, "any port"))
	sendFrom(t, a.Space, at(40002), b.Addr, frame(pairVNI, "end"))
	for _, got := range collect(t, pod, "end") {
		if got != "pair" && got != "end" {
			t.Errorf("%q came in", got)
		}
	}
	labtest.Run(t, b.Space, "nft", "flush", "ruleset") // the gate remains
	for _, from := range []uint16{40001, 0, 900} {
		sendFrom(t, a.Space, at(from), b.Addr, frame(pairVNI, fmt.Sprint(from)))
	}
	sendFrom(t, a.Space, at(40002), b.Addr, frame(pairVNI, "end"))
	if got := fmt.Sprint(collect(t, pod, "end")); got != "[end]" {
		t.Errorf("without the table %s came in", got)
	}
}

func name(n int) string { return fmt.Sprintf("frame %d", n) }

// TestWatchPair: Watch reports the frames of pairs with the peer, also of one that is made while it runs.
func TestWatchPair(t *testing.T) {
	n := openPair(t)
	a, b := n.nodes[0], n.nodes[1]
	ctx, cancel := context.WithCancel(t.Context())
	watched, ended := make(chan framewatch.Watched, 1024), make(chan error, 1)
	go func() {
		ended <- a.Do(func() error {
			return n.devs[0].Watch(ctx, func(w framewatch.Watched) {
				w.Frame = bytes.Clone(w.Frame)
				select {
				case watched <- w:
				default:
				}
			})
		})
	}()
	pod, frame := carriertest.Socket(t, a.Pod.Space, "eth0"), carriertest.Frame(ether.Broadcast, a.PodMAC, "watched")
	seen := func() {
		t.Helper()
		if err := n.devs[0].Carry(b.ID, true, nil); err != nil {
			t.Fatal(err)
		}
		labtest.Until(t, patience, func() error {
			if err := pod.Send(frame); err != nil {
				t.Fatal(err)
			}
			for len(watched) > 0 {
				if w := <-watched; w.Peer == b.ID && w.Sent && bytes.Equal(w.Frame, frame) {
					return nil
				}
			}
			return errors.New("not seen")
		})
	}
	seen()
	for _, peers := range [][]carrier.Peer{nil, {n.peer(b)}} {
		if _, err := n.devs[0].SetPeers(t.Context(), peers); err != nil {
			t.Fatal(err)
		}
	}
	for len(watched) > 0 {
		<-watched
	}
	seen()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
