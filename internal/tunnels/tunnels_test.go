package tunnels

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"weft/internal/peer"
	"weft/router/carrier/wireguard"
)

const port = 6786

// end is a node with Tunnels. It is their Host, their Sessions and their Device.
type end struct {
	*Tunnels
	id    peer.ID
	other *end

	mu      sync.Mutex
	secret  uint32 // of the session; 0: there is none
	gone    bool   // the other one is no member
	plain   bool   // frames need no seal
	dialOut bool
	lost    int // messages that get lost
	tunnel  wireguard.Tunnel
	set     int // how often the device got a tunnel
	changes int
}

func (e *end) do(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
}

func (e *end) Members() (list []Member) {
	if m, ok := e.Member(e.other.id); ok {
		list = append(list, m)
	}
	return list
}

func (e *end) Member(id peer.ID) (m Member, ok bool) {
	dialOut := e.other.DialOut()
	e.do(func() {
		m, ok = Member{ID: id, Reached: true, DialOut: dialOut, Sealed: !e.plain}, !e.gone && id == e.other.id
	})
	return m, ok
}

func (e *end) Known(peer.ID) (known bool) {
	e.do(func() { known = !e.gone })
	return known
}

func (e *end) DialOut() (on bool) {
	e.do(func() { on = e.dialOut })
	return on
}

func (e *end) Changed() { e.do(func() { e.changes++ }) }

func (e *end) SendControl(_ peer.ID, to uint8, message []byte) error {
	var lost bool
	e.do(func() {
		if lost = e.lost > 0 || e.secret == 0; e.lost > 0 {
			e.lost--
		}
	})
	if lost || to != 7 {
		return errors.New("lost")
	}
	e.other.Received(e.id, message)
	return nil
}

func (e *end) SessionSecret(peer.ID) (secret uint32, ok bool) {
	e.do(func() { secret = e.secret })
	return secret, secret != 0
}

func (e *end) Endpoint(peer.ID) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, e.other.id[0]}), 6784)
}

func (e *end) SetTunnel(_ peer.ID, t wireguard.Tunnel) error {
	e.do(func() { e.tunnel, e.set = t, e.set+1 })
	return nil
}

func (e *end) RemoveTunnel(peer.ID) error {
	e.do(func() { e.tunnel = wireguard.Tunnel{} })
	return nil
}

// simulate runs f with two nodes that have a session.
func simulate(t *testing.T, f func(t *testing.T, a, b *end)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ends := [2]*end{{id: peer.ID{1}, secret: 5}, {id: peer.ID{2}, secret: 5}}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for i, e := range ends {
			e.other = ends[1-i]
			e.Tunnels = New(Config{Self: e.id, Port: port, Channel: 7, Host: e, Logger: slog.New(slog.DiscardHandler)})
			e.restart(t)
			e.SetSecrets([]uint32{5, 6}, e)
		}
		for _, e := range ends {
			running.Go(func() { e.Run(ctx, e) })
		}
		f(t, ends[0], ends[1])
		cancel()
		running.Wait()
	})
}

// restart makes the device again.
func (e *end) restart(t *testing.T) {
	t.Helper()
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	e.SetDevice(e, key)
}

// agree checks that both nodes have a tunnel with the same preshared key, and returns that.
func agree(t *testing.T, a, b *end) wgtypes.Key {
	t.Helper()
	synctest.Wait()
	if a.tunnel.Preshared != b.tunnel.Preshared || a.tunnel.Preshared == (wgtypes.Key{}) || a.tunnel.Public == b.tunnel.Public ||
		!a.Has(b.id) || !b.Has(a.id) {
		t.Fatalf("%+v and %+v", a.tunnel, b.tunnel)
	}
	return a.tunnel.Preshared
}

// TestTunnels: nodes with a session have a tunnel, once, with another preshared key for each secret of the session.
func TestTunnels(t *testing.T) {
	simulate(t, func(t *testing.T, a, b *end) {
		time.Sleep(3 * tick)
		first := agree(t, a, b)
		if want := netip.MustParseAddrPort("192.0.2.2:6786"); a.tunnel.Endpoint != want || a.tunnel.Keepalive || a.changes != 1 {
			t.Errorf("%+v, %d changes", a.tunnel, a.changes)
		}
		time.Sleep(time.Hour)
		if agree(t, a, b) != first || a.set != 1 || b.set != 1 {
			t.Errorf("set %d and %d times", a.set, b.set)
		}
		a.do(func() { a.secret = 6 })
		b.do(func() { b.secret = 6 })
		time.Sleep(5 * tick)
		if agree(t, a, b) == first {
			t.Error("the preshared key is that of the secret before")
		}
		a.SetSecrets([]uint32{6, 7}, a)
		agree(t, a, b)
		if a.SetSecrets([]uint32{7}, a); a.Has(b.id) || a.tunnel != (wireguard.Tunnel{}) {
			t.Error("the tunnel has survived its secret")
		}
		a.SetSecrets([]uint32{6}, a)
		time.Sleep(time.Minute)
		agree(t, a, b)
		a.restart(t)
		if a.Has(b.id) {
			t.Error("a new device has a tunnel")
		}
		time.Sleep(10 * tick)
		agree(t, a, b)
	})
}

// TestDroppedSecret: a tunnel ends at once with the secret of its session.
func TestDroppedSecret(t *testing.T) {
	simulate(t, func(t *testing.T, a, b *end) {
		time.Sleep(3 * tick)
		agree(t, a, b)
		a.SetSecrets([]uint32{6}, a) // the session is still that of the dropped one
		if a.Has(b.id) || a.tunnel != (wireguard.Tunnel{}) {
			t.Error("the tunnel is still there")
		}
		time.Sleep(time.Minute)
		if a.Has(b.id) {
			t.Error("there is a tunnel by a dropped secret")
		}
		a.do(func() { a.secret = 6 })
		b.do(func() { b.secret = 6 })
		time.Sleep(time.Minute)
		agree(t, a, b)
	})
}

// TestNoTunnel: there is none to a node that has left, to one that is reached unsealed, nor between two that are both behind an address
// translator.
func TestNoTunnel(t *testing.T) {
	for name, change := range map[string]func(e *end){
		"plain": func(e *end) { e.plain = true }, "dial-out": func(e *end) { e.dialOut = true },
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(t *testing.T, a, b *end) {
				for _, e := range []*end{a, b} {
					e.do(func() { change(e) })
				}
				time.Sleep(time.Minute)
				if a.Has(b.id) || b.Has(a.id) {
					t.Error("there is a tunnel")
				}
			})
		})
	}
	simulate(t, func(t *testing.T, a, b *end) {
		time.Sleep(3 * tick)
		agree(t, a, b)
		a.do(func() { a.gone = true })
		time.Sleep(2 * tick)
		synctest.Wait()
		if a.Has(b.id) || a.tunnel != (wireguard.Tunnel{}) || a.changes != 2 {
			t.Error("a node that has left has a tunnel")
		}
	})
}

// TestTranslator: a node behind an address translator begins and keeps the mapping; the other one waits for it.
func TestTranslator(t *testing.T) {
	simulate(t, func(t *testing.T, a, b *end) {
		a.do(func() { a.dialOut = true })
		time.Sleep(5 * tick)
		agree(t, a, b)
		if !a.tunnel.Keepalive || !a.tunnel.Endpoint.IsValid() || b.tunnel.Keepalive || b.tunnel.Endpoint.IsValid() {
			t.Errorf("%+v and %+v", a.tunnel, b.tunnel)
		}
	})
}

// TestLoss: lost messages are repeated.
func TestLoss(t *testing.T) {
	simulate(t, func(t *testing.T, a, b *end) {
		a.do(func() { a.lost = 3 })
		b.do(func() { b.lost = 2 })
		time.Sleep(2 * time.Minute)
		agree(t, a, b)
	})
}
