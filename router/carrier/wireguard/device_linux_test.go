package wireguard_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"weft/internal/ether"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
	"weft/internal/nettest/wireguardtest"
	"weft/internal/peer"
	"weft/router/carrier"
	"weft/router/carrier/carriertest"
	"weft/router/carrier/wireguard"
	"weft/tap/taptest"
)

// pair is two hosts that carry each other.
type pair struct {
	*lab
	t     *testing.T
	hosts [2]*carriertest.Host
	devs  [2]*wireguard.Device
	pods  [2]*taptest.Socket
	wire  *taptest.Socket // what the first host sends and receives on the underlay
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{lab: newLab(), t: t}
	network := labtest.New(t, nettest.Config{})
	for i := range p.hosts {
		p.hosts[i] = carriertest.NewHost(t, network, byte(i+1), false)
		p.pods[i] = carriertest.Socket(t, p.hosts[i].Pod.Space, "eth0")
	}
	p.wire = carriertest.Socket(t, p.hosts[0].Space, "eth0")
	for i := range p.hosts {
		p.openHost(i)
	}
	return p
}

// openHost opens the device of a host and carries the other one.
func (p *pair) openHost(i int) {
	p.t.Helper()
	h, other := p.hosts[i], p.peer(1-i)
	err := h.Do(func() (err error) {
		p.devs[i], err = p.open(p.t, h, other)
		return err
	})
	p.must(err)
	d := p.devs[i]
	p.t.Cleanup(func() { _ = d.Close() })
	p.must(h.AddPorts(innerName))
	_, err = d.SetPeers(p.t.Context(), []carrier.Peer{other})
	p.must(err)
	p.must(d.Carry(other.ID, true, nil))
}

func (p *pair) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) peer(i int) carrier.Peer {
	return carrier.Peer{ID: p.hosts[i].ID, Addr: p.hosts[i].Addr}
}

// arrives checks that a broadcast of one host arrives at the pod of the other one, before any other.
func (p *pair) arrives(from int, content string) {
	p.t.Helper()
	p.send(from, content)
	if got := carriertest.NextFrame(p.t, p.pods[1-from]); got != content {
		p.t.Errorf("%q arrived, want %q", got, content)
	}
}

func (p *pair) send(from int, content string) {
	p.t.Helper()
	p.must(p.pods[from].Send(carriertest.Frame(ether.Broadcast, p.hosts[from].PodMAC, content)))
}

// onWire returns the packets that were seen on the underlay since the last call, up to an end mark.
func (p *pair) onWire() (packets [][]byte) {
	p.t.Helper()
	const mark = "the end of the capture"
	p.must(p.hosts[1].Do(func() error {
		c, err := net.Dial("udp", netip.AddrPortFrom(p.hosts[0].Addr, 9).String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte(mark))
		return err
	}))
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	for {
		f, err := p.wire.Receive(ctx)
		p.must(err)
		if strings.Contains(string(f), mark) {
			return packets
		}
		packets = append(packets, f)
	}
}

// sealed checks that the packets on the underlay include some of WireGuard, and none with a content.
func (p *pair) sealed(content string, least int) {
	p.t.Helper()
	tunnel := 0
	for _, f := range p.onWire() {
		if strings.Contains(string(f), content) {
			p.t.Errorf("%q is on the underlay", content)
		}
		if len(f) > 42 && (f[34] == outerPort>>8 && f[35] == outerPort&0xff) {
			tunnel++
		}
	}
	if tunnel < least {
		p.t.Errorf("%d packets of WireGuard on the underlay, want %d", tunnel, least)
	}
}

// TestSealed: frames cross the underlay sealed, also the first one, and none does while WireGuard or its device is away.
func TestSealed(t *testing.T) {
	p := newPair(t)
	p.arrives(0, "secret one")
	p.arrives(1, "secret two")
	p.sealed("secret", 2)
	p.must(p.devs[0].RemoveTunnel(p.peer(1).ID))
	p.send(0, "secret three")
	p.sealed("secret", 0)
	p.must(p.devs[0].SetTunnel(p.peer(1).ID, p.tunnel(t, p.peer(1), 1)))
	_, err := p.devs[0].SetPeers(t.Context(), []carrier.Peer{p.peer(1)})
	p.must(err)
	p.must(p.devs[0].Carry(p.peer(1).ID, true, nil))
	p.arrives(0, "secret four")
	p.must(p.devs[1].RemoveTunnel(p.peer(0).ID)) // the receiver takes nothing any more, whatever the sender does
	p.send(0, "secret five")
	p.must(p.devs[1].SetTunnel(p.peer(0).ID, p.tunnel(t, p.peer(0), 1)))
	_, err = p.devs[1].SetPeers(t.Context(), []carrier.Peer{p.peer(0)})
	p.must(err)
	labtest.Until(t, patience, func() error { // until WireGuard has made a session again
		p.send(0, "secret six")
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		f, err := p.pods[1].Receive(ctx)
		if err == nil && strings.Contains(string(f), "secret five") {
			t.Error("a frame arrived that was sent while there was no tunnel")
		}
		return err
	})
	carriertest.IP(t, p.hosts[0].Space, "-6 route replace default dev eth0")
	carriertest.IP(t, p.hosts[0].Space, "link del "+p.names[p.hosts[0].ID])
	p.send(0, "secret seven")
	p.sealed("secret", 0)
	if _, err := p.devs[0].Sample(); !errors.Is(err, carrier.ErrGone) {
		t.Errorf("without WireGuard, Sample returned %v", err)
	}
}

// TestRotation: another preshared key on both ends, one after the other, loses nothing, and neither does another end point.
func TestRotation(t *testing.T) {
	p := newPair(t)
	p.arrives(0, "first")
	for key := byte(2); key < 5; key++ {
		for i, d := range p.devs {
			p.must(d.SetTunnel(p.peer(1-i).ID, p.tunnel(t, p.peer(1-i), key)))
			p.arrives(0, fmt.Sprintf("to %d %d", key, i))
			p.arrives(1, fmt.Sprintf("from %d %d", key, i))
		}
	}
}

// TestOtherSources: a peer cannot use the address of another one, and nothing but VXLAN comes through the tunnel.
func TestOtherSources(t *testing.T) {
	p := newPair(t)
	p.arrives(0, "first")
	from, to := wireguard.Address(p.hosts[0].ID), wireguard.Address(p.hosts[1].ID)
	other := wireguard.Address(peer.ID{9})
	carriertest.IP(t, p.hosts[0].Space, "addr add "+other.String()+"/64 dev "+p.names[p.hosts[0].ID]+" nodad")
	drops := func() uint64 {
		counts, err := p.devs[1].FilterDrops(t.Context())
		p.must(err)
		return counts["tunnel"]
	}
	send := func(from netip.Addr, port int) {
		t.Helper()
		p.must(p.hosts[0].Do(func() error {
			c, err := net.DialUDP("udp", &net.UDPAddr{IP: from.AsSlice()}, &net.UDPAddr{IP: to.AsSlice(), Port: port})
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("x"))
			return err
		}))
	}
	labtest.Run(t, p.hosts[0].Space, "nft", "delete table inet weft-"+innerName) // a peer may do as it likes
	send(other, 53)
	send(from, 53)
	labtest.Until(t, patience, func() error {
		if drops() == 0 {
			return errors.New("nothing is dropped")
		}
		return nil
	})
	if n := drops(); n != 1 {
		t.Errorf("%d packets came through the tunnel, want that with the address of the peer alone", n)
	}
	// Whatever a peer's own configuration permits, this host forwards nothing from the tunnel.
	a, b := p.hosts[0], p.hosts[1]
	_, everything, err := net.ParseCIDR("::/0")
	p.must(err)
	p.configure(t, a, wgtypes.Config{Peers: []wgtypes.PeerConfig{
		{PublicKey: p.key(t, b.ID).PublicKey(), UpdateOnly: true, AllowedIPs: []net.IPNet{*everything}},
	}})
	carriertest.IP(t, a.Space, "route add 2001:db8::/64 dev "+p.names[a.ID])
	labtest.Run(t, b.Space, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf."+carriertest.Bridge+".disable_ipv6=0")
	carriertest.IP(t, b.Space, "addr add 2001:db8::1/64 dev "+carriertest.Bridge+" nodad")
	before := drops()
	to = netip.MustParseAddr("2001:db8::7")
	send(from, 53)
	labtest.Until(t, patience, func() error { // the host's own multicasts may come through the tunnel now, and are dropped too
		if drops() == before {
			return errors.New("nothing is dropped")
		}
		return nil
	})
	p.send(0, "after it")
	for {
		f, err := p.pods[1].Receive(t.Context())
		p.must(err)
		if strings.Contains(string(f), string(to.AsSlice())) { // a neighbor solicitation
			t.Error("a packet from the tunnel was forwarded")
		}
		if strings.Contains(string(f), "after it") {
			return
		}
	}
}

// TestHangs: a WireGuard that does not answer costs a call some seconds, and no further one. When it answers again, all is restored.
func TestHangs(t *testing.T) {
	if wireguardtest.Kernel() {
		t.Skip("that of the kernel does not hang")
	}
	p := newPair(t)
	p.arrives(0, "first")
	stop(t, p.programs[p.hosts[0].ID])
	for range 3 {
		if err := p.devs[0].Ensure(t.Context()); err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("Ensure returned %v", err)
		}
	}
	p.must(p.programs[p.hosts[0].ID].Signal(syscall.SIGCONT))
	labtest.Until(t, patience, func() error { return p.devs[0].Ensure(t.Context()) })
	p.arrives(0, "again")
}

// stop stops a process, and waits until none of its threads runs.
func stop(t *testing.T, p *nettest.Process) {
	t.Helper()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	labtest.Until(t, patience, func() error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.Pid()))
		for _, name := range threads {
			if status, readErr := os.ReadFile(name); readErr == nil && !strings.Contains(string(status), "State:\tT") {
				return errors.New(name + " runs")
			}
		}
		return err
	})
}

// TestLeftBehind: what an earlier run has left is removed, also from a device that existed before.
func TestLeftBehind(t *testing.T) {
	p := newPair(t)
	p.arrives(0, "first")
	p.devs[0].Keep()
	p.must(p.devs[0].Close())
	h := p.hosts[0]
	p.must(h.Do(func() error { return wireguard.RemoveOthers(p.names[h.ID]) }))
	if len(p.configured(t, h)) != 1 {
		t.Error("the device of this run has lost its peers")
	}
	p.must(h.Do(func() error { return wireguard.RemoveOthers("") }))
	if wireguardtest.Kernel() {
		if strings.Contains(links(t, h), p.names[h.ID]) {
			t.Error("the device is still there")
		}
		return
	}
	if out := carriertest.IP(t, h.Space, "-6 addr show dev "+p.names[h.ID]); len(p.configured(t, h)) != 0 || strings.Contains(out, "fdb0:") {
		t.Errorf("left behind: %v, %s", p.configured(t, h), out)
	}
}

// TestInTheWay: a foreign device, and one with foreign peers, are named and left alone.
func TestInTheWay(t *testing.T) {
	l := newLab()
	h := carriertest.NewHost(t, labtest.New(t, nettest.Config{}), 1, false)
	c := l.config(t, h)
	if !wireguardtest.Kernel() {
		_, network, err := net.ParseCIDR("10.0.0.0/8")
		if err != nil {
			t.Fatal(err)
		}
		foreign := wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: l.key(t, peer.ID{7}).PublicKey(), AllowedIPs: []net.IPNet{*network}}}}
		l.configure(t, h, foreign)
		refused(t, h, c, wireguard.ErrNotOurs, "10.0.0.0")
		l.configure(t, h, wgtypes.Config{ReplacePeers: true})
	}
	carriertest.IP(t, h.Space, "link add weftwg0 type veth peer name other")
	c.Name, c.Existing = "weftwg0", false
	refused(t, h, c, wireguard.ErrNotOurs, "ip link del weftwg0")
	if !wireguardtest.Kernel() {
		c.Existing = true
		refused(t, h, c, wireguard.ErrNoWireGuard, "weftwg0")
		c.Name = "absent"
		refused(t, h, c, wireguard.ErrNoWireGuard, "absent")
		c.Name, c.Existing = "weftwg1", false // this kernel has no WireGuard
		refused(t, h, c, wireguard.ErrNoWireGuard, "modprobe wireguard")
	}
	for field, change := range map[string]func(*wireguard.Config){
		"Name": func(c *wireguard.Config) { c.Name = "a b" }, "Port": func(c *wireguard.Config) { c.Port = 0 },
		"Private": func(c *wireguard.Config) { c.Private = wgtypes.Key{} }, "MTU": func(c *wireguard.Config) { c.VXLAN.MTU = 1 },
	} {
		bad := c
		change(&bad)
		refused(t, h, bad, carrier.ErrConfig, field)
	}
}

// refused checks that Open fails, and leaves nothing behind.
func refused(t *testing.T, h *carriertest.Host, c wireguard.Config, want error, words string) {
	t.Helper()
	before := links(t, h)
	var err error
	_ = h.Do(func() error {
		var d *wireguard.Device
		if d, err = wireguard.Open(t.Context(), c); err == nil {
			return d.Close()
		}
		return nil
	})
	if !errors.Is(err, want) || !strings.Contains(err.Error(), words) {
		t.Errorf("Open returned %v, want %v with %q", err, want, words)
	}
	if after := links(t, h); after != before {
		t.Errorf("left behind: %s, before %s", after, before)
	}
}

func links(t *testing.T, h *carriertest.Host) string {
	t.Helper()
	var names []string
	if err := h.Do(func() error {
		list, err := netlink.LinkList()
		for _, l := range list {
			names = append(names, l.Attrs().Name)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}
