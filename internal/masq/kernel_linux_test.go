package masq_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/masq"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// do calls f with a Firewall in the host's network namespace.
func do(t *testing.T, h *nettest.Host, f func(fw *masq.NFT) error) {
	t.Helper()
	err := h.Do(func() error {
		fw, err := masq.New(t.Context())
		if err != nil {
			return err
		}
		return f(fw)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// addPod adds a pod to a bridge of the host.
func addPod(t *testing.T, h *nettest.Host) *nettest.Pod {
	t.Helper()
	p := labtest.AddPod(t, h, "pod")
	for _, line := range []string{
		"link add weave type bridge",
		"addr add 10.32.0.1/12 dev weave",
		"addr add fd32::1/64 dev weave nodad",
		"link set weave up",
		"link add port master weave type veth peer name eth0 netns " + p.Name(),
		"link set port up",
	} {
		labtest.Run(t, h.Space, append([]string{"ip"}, strings.Fields(line)...)...)
	}
	for _, line := range []string{
		"addr add 10.32.0.2/12 dev eth0",
		"addr add fd32::2/64 dev eth0 nodad",
		"link set eth0 up",
		"route add default via 10.32.0.1",
		"-6 route add default via fd32::1",
	} {
		labtest.Run(t, p.Space, append([]string{"ip"}, strings.Fields(line)...)...)
	}
	return p
}

// seenAs returns the source address that a server on another host sees for a datagram of the pod.
func seenAs(t *testing.T, from *nettest.Space, server *nettest.Space, at netip.Addr) (netip.Addr, error) {
	t.Helper()
	var conn *net.UDPConn
	err := server.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	err = from.Do(func() error {
		out, err := net.DialUDP("udp", nil, conn.LocalAddr().(*net.UDPAddr))
		if err != nil {
			return err
		}
		defer func() { _ = out.Close() }()
		_, err = out.Write([]byte("hello"))
		return err
	})
	if err != nil {
		return netip.Addr{}, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	_, sender, err := conn.ReadFromUDPAddrPort(make([]byte, 16))
	return sender.Addr().Unmap(), err
}

func TestMasquerade(t *testing.T) {
	l := labtest.New(t, nettest.Config{})
	a, b := labtest.AddHost(t, l, "a"), labtest.AddHost(t, l, "b")
	p := addPod(t, a)
	labtest.Run(t, a.Space, "nft", "add table inet other")
	rules := masq.Ruleset{Ranges: []netip.Prefix{netip.MustParsePrefix("10.32.0.0/12"), netip.MustParsePrefix("fd32::/64")}, Bridge: "weave"}
	for range 2 {
		do(t, a, func(fw *masq.NFT) error {
			return errors.Join(masq.EnableForwarding(true, true), fw.Apply(t.Context(), rules))
		})
	}
	expect := func(server *nettest.Space, at, want netip.Addr) {
		t.Helper()
		labtest.Until(t, 5*time.Second, func() error {
			got, err := seenAs(t, p.Space, server, at)
			if err == nil && got != want {
				err = fmt.Errorf("%s sees %s, want %s", at, got, want)
			}
			return err
		})
	}
	expect(b.Space, b.Addr(), a.Addr())
	expect(b.Space, b.Addr6(), a.Addr6())
	pod4, pod6 := netip.MustParseAddr("10.32.0.2"), netip.MustParseAddr("fd32::2")
	expect(a.Space, netip.MustParseAddr("10.32.0.1"), pod4)
	expect(a.Space, a.Addr(), pod4) // packets to the host itself do not leave it

	// Inside the overlay the source address stays, also when the underlay carries the packet.
	labtest.Run(t, p.Space, "ip", "route", "add", "10.33.0.1", "via", "10.32.0.1")
	labtest.Run(t, b.Space, "ip", "addr", "add", "10.33.0.1/32", "dev", "lo")
	labtest.Run(t, b.Space, "ip", "route", "add", "10.32.0.2", "via", a.Addr().String())
	labtest.Run(t, a.Space, "ip", "route", "add", "10.33.0.1", "via", b.Addr().String())
	labtest.Run(t, b.Space, "ip", "route", "add", "fd32::2", "via", a.Addr6().String())
	expect(b.Space, netip.MustParseAddr("10.33.0.1"), pod4)

	do(t, a, func(fw *masq.NFT) error { return errors.Join(fw.Remove(t.Context()), fw.Remove(t.Context())) })
	if out := labtest.Run(t, a.Space, "nft", "list", "ruleset"); strings.TrimSpace(out) != "table inet other {\n}" {
		t.Errorf("after Remove:\n%s", out)
	}
	expect(b.Space, b.Addr6(), pod6)
}

func TestNoNFT(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := masq.New(t.Context()); !errors.Is(err, masq.ErrNoNFT) {
		t.Errorf("New = %v, want ErrNoNFT", err)
	}
}

// TestIntact: rules that another program changes are no longer intact, those of other programs do not matter.
func TestIntact(t *testing.T) {
	h := labtest.AddHost(t, labtest.New(t, nettest.Config{}), "host")
	rules := masq.Ruleset{Ranges: []netip.Prefix{netip.MustParsePrefix("10.32.0.0/12")}, Bridge: "weave"}
	for line, want := range map[string]bool{
		"nft flush ruleset": false, "nft delete table inet weft": false, "nft flush chain inet weft postrouting": false,
		"nft flush set inet weft overlay4": false, "nft insert rule inet weft postrouting accept": false,
		"nft add table inet other": true,
	} {
		do(t, h, func(fw *masq.NFT) error {
			if err := fw.Apply(t.Context(), rules); err != nil {
				return err
			}
			sums, err := fw.Sums()
			if err != nil {
				return err
			}
			labtest.Run(t, h.Space, strings.Fields(line)...)
			if intact, err := fw.Intact(sums); err != nil || intact != want {
				t.Errorf("%s: intact %v, %v; want %v", line, intact, err, want)
			}
			return nil
		})
	}
}
