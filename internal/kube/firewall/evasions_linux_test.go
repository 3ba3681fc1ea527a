package firewall_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/internal/ether"
	"weft/internal/guard/guardtest"
	"weft/internal/kube/policy"
	"weft/internal/nettest/labtest"
)

// station is a pod of a cluster as the frames of the guard's tests need it. Its link-local address follows from its MAC.
func station(p *policy.Pod) (s guardtest.Station) {
	s.MAC = ether.FromIP(p.IPs[0])
	for _, ip := range p.IPs {
		if ip.Is4() {
			s.IP4 = ip
		} else {
			s.IP6 = ip
		}
	}
	return s
}

// passesPolicies reports whether policies let a frame pass to and from pods that may not communicate: ARP, and with IPv6 neighbor
// discovery: its claims are the business of the guard.
func passesPolicies(f guardtest.Frame, dual bool) bool {
	switch ether.Type(f.Data) {
	case ether.TypeARP:
		return true
	case ether.TypeIPv6:
		if !dual {
			return false
		}
		for _, name := range []string{"advertisement", "solicitation", "redirect", "duplicate", "listener", "fragment headers"} {
			if strings.Contains(f.Name, name) {
				return true
			}
		}
	}
	return false
}

// TestEvasions: none of the frames with which pods deceive others reaches a pod that is isolated, from a pod of its node or from another
// node, and none leaves it.
func TestEvasions(t *testing.T) {
	for _, dual := range []bool{false, true} {
		n := newNetwork(t)
		c := &policy.Cluster{Namespaces: map[string]policy.Labels{"ns": {}}}
		for i, name := range []string{"alone", "other", "third"} {
			p := &policy.Pod{Namespace: "ns", Name: name, Labels: policy.Labels{"name": name}, Local: true, Link: "vweft" + name,
				IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 32, 1, byte(2 + i)})}}
			if dual {
				p.IPs = append(p.IPs, netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x32, 15: byte(2 + i)}))
			}
			p.LinkLocal = ether.FromIP(p.IPs[0]).LinkLocal()
			c.Pods = append(c.Pods, p)
			n.addPort(t, p.Link)
		}
		c.Network = []*networkingv1.NetworkPolicy{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "deny"},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"name": "alone"}},
				PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			},
		}}
		n.apply(t, c)
		alone, other, third := c.Pods[0], c.Pods[1], c.Pods[2]
		bridge := guardtest.Station{MAC: ether.Addr{6, 0x57, 1, 2, 3, 4}, IP4: netip.MustParseAddr("10.32.100.1"),
			IP6: netip.MustParseAddr("fd32::99")}
		check := func(from string, own guardtest.Station, to *policy.Pod) {
			t.Helper()
			var frames []guardtest.Frame
			for _, as := range []guardtest.Station{station(alone), station(other), station(third), bridge} {
				for _, list := range [][]guardtest.Frame{
					guardtest.Forbidden(own, as), guardtest.Evasions(own, as), guardtest.Claims(own, bridge), guardtest.Disguises(own, bridge),
					guardtest.Allowed(own, as), guardtest.Unasked(own), guardtest.VIP(own, as, netip.MustParseAddr("10.32.200.1")),
				} {
					frames = append(frames, list...)
				}
			}
			n.drain(n.sockets[to.Link])
			seen := map[string]bool{}
			for _, f := range frames {
				if passesPolicies(f, dual) {
					continue
				}
				if got := n.exchange(t, from, to.Link, f); got && !seen[f.Name] {
					seen[f.Name] = true
					t.Errorf("dual stack %t: from %s to %s: %s arrived", dual, from, to.Link, f.Name)
				}
			}
		}
		check(other.Link, station(other), alone)
		far := guardtest.Station{MAC: ether.Addr{2, 0, 0, 0, 0, 77}, IP4: netip.MustParseAddr("10.32.9.9")}
		if dual {
			far.IP6 = netip.MustParseAddr("fd32::909")
		}
		check(uplink, far, alone)
		check(uplink, station(alone), alone)
		check(alone.Link, station(alone), other)
	}
}

// exchange sends a frame, and reports whether it reached a port, after an ARP message that passes has.
func (n *network) exchange(t *testing.T, from, to string, f guardtest.Frame) (arrived bool) {
	t.Helper()
	n.serial++
	marker := ether.Addr{2, 0xdd, 0, 0, byte(n.serial >> 8), byte(n.serial)}
	data := append(marker[:], 2, 0xee, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	data = append(data, make([]byte, 60-len(data))...)
	n.onOneCPU(t, func() error {
		if _, err := unix.Write(n.sockets[from], f.Data); err != nil {
			return err
		}
		_, err := unix.Write(n.sockets[from], data)
		return err
	})
	labtest.Until(t, 10*time.Second, func() error {
		buf := make([]byte, 2048)
		for {
			if _, err := unix.Read(n.sockets[to], buf); err != nil {
				return err
			}
			if ether.Addr(buf[:6]) == marker {
				return nil
			}
			arrived = arrived || ether.Addr(buf[:6]) == f.To()
		}
	})
	return arrived
}
