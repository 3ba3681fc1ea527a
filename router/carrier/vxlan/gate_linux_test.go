package vxlan_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"weft/internal/ether"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
	"weft/router/carrier"
	"weft/router/carrier/carriertest"
)

// privileged is a source port that only a privileged user of a host has.
const privileged = 900

// forged returns a VXLAN datagram with a broadcast frame of the given content.
func forged(content string) []byte { return encapsulated(ether.Broadcast, ether.Addr{2, 9}, content) }

// encapsulated returns a VXLAN datagram with a frame.
func encapsulated(dst, src ether.Addr, content string) []byte {
	return append(vxlanHeader(vni), carriertest.Frame(dst, src, content)...)
}

// vxlanHeader returns the header of RFC 7348, section 5.
func vxlanHeader(vni uint32) []byte {
	return []byte{0x08, 0, 0, 0, byte(vni >> 16), byte(vni >> 8), byte(vni), 0}
}

// sendTo sends datagrams from an address of a namespace, or from the one that its routes choose, as the kernel of a node would.
func sendTo(t *testing.T, s *nettest.Space, from, to netip.Addr, datagrams ...[]byte) {
	t.Helper()
	sendFrom(t, s, netip.AddrPortFrom(from, privileged), to, datagrams...)
}

// sendFrom sends datagrams from an address and port; the port 0 stands for one that any user gets.
func sendFrom(t *testing.T, s *nettest.Space, from netip.AddrPort, to netip.Addr, datagrams ...[]byte) {
	t.Helper()
	err := s.Do(func() error {
		remote := net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, port))
		conn, err := net.DialUDP("udp", &net.UDPAddr{IP: from.Addr().AsSlice(), Port: int(from.Port())}, remote)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		for _, d := range datagrams {
			if _, err := conn.Write(d); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Logf("send: %v", err) // a refusal of an earlier one
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestGate: without any nftables rule, frames of a foreign host do not reach a pod, those of a peer do, for both families of the
// underlay.
func TestGate(t *testing.T) {
	for name, v6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			l := labtest.New(t, nettest.Config{})
			a, b := newNode(t, l, 1, v6), newNode(t, l, 2, v6)
			if err := a.dev.Gate(); err != nil {
				t.Fatalf("this kernel has no gate: %v", err)
			}
			foreign := labtest.AddHost(t, l, "foreign")
			from := foreign.Addr()
			if v6 {
				from = foreign.Addr6()
			}
			if _, err := a.dev.SetPeers(t.Context(), []carrier.Peer{b.peer()}); err != nil {
				t.Fatal(err)
			}
			labtest.Run(t, a.Space, "nft", "flush", "ruleset")
			pod := carriertest.Socket(t, a.Pod.Space, "eth0")
			for i := range 5 {
				sendTo(t, foreign.Space, from, a.Addr, forged(fmt.Sprintf("foreign %d", i)))
			}
			if !v6 { // a pod with the address of a peer
				labtest.Run(t, a.Pod.Space, "ip", "addr", "add", b.Addr.String()+"/32", "dev", "lo")
				labtest.Run(t, a.Pod.Space, "ip", "route", "add", a.Addr.String(), "via", "10.32.1.1", "src", b.Addr.String())
				sendTo(t, a.Pod.Space, b.Addr, a.Addr, forged("own pod"))
			}
			sendTo(t, b.Space, b.Addr, a.Addr, forged("peer"))
			for _, content := range collect(t, pod, "peer") {
				if content != "peer" {
					t.Errorf("the pod got %q", content)
				}
			}
			intact, err := a.dev.FilterIntact()
			if err != nil || intact {
				t.Errorf("after a flush the filter is intact: %v, %v", intact, err)
			}
			if err := a.dev.RestoreFilter(t.Context()); err != nil {
				t.Fatal(err)
			}
			if intact, err = a.dev.FilterIntact(); err != nil || !intact {
				t.Errorf("after the repair the filter is intact: %v, %v", intact, err)
			}
			if _, err := a.dev.SetPeers(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			labtest.Run(t, a.Space, "nft", "flush", "ruleset")
			sendTo(t, b.Space, b.Addr, a.Addr, forged("former peer"))
			if _, err := a.dev.SetPeers(t.Context(), []carrier.Peer{b.peer()}); err != nil {
				t.Fatal(err)
			}
			sendTo(t, b.Space, b.Addr, a.Addr, forged("peer again"))
			if got := collect(t, pod, "peer again"); len(got) != 1 {
				t.Errorf("the pod got %q", got)
			}
		})
	}
}

// TestWithoutGate: where the kernel has no gate, the device is down while the filter is missing, and comes up with it.
func TestWithoutGate(t *testing.T) {
	l := labtest.New(t, nettest.Config{})
	a, b := newNode(t, l, 1, false), newNode(t, l, 2, false)
	if err := a.dev.CloseGate(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.dev.SetPeers(t.Context(), []carrier.Peer{b.peer()}); err != nil {
		t.Fatal(err)
	}
	labtest.Run(t, a.Space, "nft", "flush", "ruleset")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.dev.RestoreFilter(ended); err == nil {
		t.Fatal("the filter was set after the end of the context")
	}
	if s, err := a.dev.Sample(); err != nil || s.Ready {
		t.Errorf("without a filter the device can carry frames: %+v, %v", s, err)
	}
	if err := a.dev.RestoreFilter(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s, err := a.dev.Sample(); err != nil || !s.Ready {
		t.Errorf("with the filter the device cannot carry frames: %+v, %v", s, err)
	}
}
