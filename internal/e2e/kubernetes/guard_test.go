package kubernetes

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"weft/internal/ether"
	"weft/internal/guard/guardtest"
	"weft/internal/netspace"
)

// station is a pod with a socket that sends any frame and sees all that arrive.
type station struct {
	guardtest.Station
	name   string
	socket *guardtest.Socket
}

// newStation opens a socket in a pod, as a pod with NET_RAW can. It is closed at the end of the test.
func (l *lab) newStation(t testing.TB, node int, name string) *station {
	t.Helper()
	s := &station{name: name}
	if err := netspace.Do(l.podSpace(t, node, name), func() (err error) {
		if s.MAC, err = guardtest.Hardware("eth0"); err == nil {
			s.socket, err = guardtest.Open("eth0")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.socket.Close() })
	for _, a := range l.ips(t, "pod", name) {
		if a.Is4() {
			s.IP4 = a
		} else {
			s.IP6 = a
		}
	}
	return s
}

// bridgeStation returns the bridge of a node, as pods see it.
func (l *lab) bridgeStation(t testing.TB, node int) (s guardtest.Station) {
	t.Helper()
	status := l.status(t, node)
	for _, p := range status.Exposed {
		if p.Addr().Is4() {
			s.IP4 = p.Addr()
		} else {
			s.IP6 = p.Addr()
		}
	}
	if err := netspace.Do(l.nodeSpace(t, node), func() error {
		bridge, err := net.InterfaceByName(status.Bridge)
		if err == nil {
			s.MAC = ether.Addr(bridge.HardwareAddr)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return s
}

// marker returns a frame that passes the guard, to recognize the end of what was sent before it.
func (s *station) marker(at *station, number byte) guardtest.Frame {
	marker := guardtest.Marker(s.Station, at.Station, number)
	if s.IP4 != foreign4 {
		return marker
	}
	for _, f := range guardtest.Allowed(s.Station, at.Station) {
		if strings.HasPrefix(f.Name, "IPv6") {
			to := marker.To()
			copy(f.Data, to[:])
			return f
		}
	}
	panic("guardtest has no frame with IPv6")
}

// sends sends frames from one pod to another, and returns the names of those that arrived.
func (s *station) sends(t testing.TB, at *station, number byte, frames []guardtest.Frame) (arrived []string) {
	t.Helper()
	marker := s.marker(at, number)
	if err := s.socket.Send(append(slices.Clone(frames), marker)...); err != nil {
		t.Fatal(err)
	}
	seen, err := at.socket.Until(marker, 20*time.Second)
	if err != nil {
		t.Fatalf("from %s at %s: %v", s.name, at.name, err)
	}
	// Frames of different flows take different queues between nodes, so the marker may arrive before others.
	later, _ := at.socket.Until(s.marker(at, number+1), time.Second)
	for _, f := range frames {
		if seen[f.To()] || later[f.To()] {
			arrived = append(arrived, f.Name)
		}
	}
	return arrived
}

// foreign4 is an address of no pod, for frames with IPv4 in clusters without it.
var foreign4 = netip.MustParseAddr("192.0.2.7")

// guard: a pod with NET_RAW sends with the MAC and the addresses of others, and answers ARP and neighbor discovery for them. No other pod
// sees such a frame, on its node and on another. The same frames of a pod that is not bound arrive, so the test sees what passes.
func (l *lab) guard(t *recorder) string {
	const open = `, annotations: {weft.network/guard: "off"}`
	l.createTemporary(t, pod{name: "bound", node: 1}, pod{name: "open", node: 1, metadata: open}, pod{name: "near", node: 1, metadata: open},
		pod{name: "far", node: 2, metadata: open})
	bound, free := l.newStation(t, 1, "bound"), l.newStation(t, 1, "open")
	near, far := l.newStation(t, 1, "near"), l.newStation(t, 2, "far")
	all := []*station{bound, free, near, far}
	for _, s := range all {
		if !s.IP4.IsValid() {
			s.IP4 = foreign4
		}
	}
	gateway := l.bridgeStation(t, 1)
	if !gateway.IP4.IsValid() {
		gateway.IP4 = foreign4.Next()
	}
	for _, from := range []string{"bound", "open"} {
		for _, to := range []string{"near", "far"} {
			until(t, func() error { return l.reach(t, from, to) })
		}
	}
	number, dropped := byte(0), 0
	for _, at := range []*station{near, far} {
		for _, as := range []guardtest.Station{near.Station, far.Station, free.Station, gateway} {
			frames := append(guardtest.Forbidden(bound.Station, as), guardtest.Evasions(bound.Station, as)...)
			number += 2
			for _, name := range bound.sends(t, at, number, frames) {
				t.Errorf("from a bound pod at %s: %s", at.name, name)
			}
			dropped += len(frames)
		}
	}
	for _, at := range []*station{near, far} { // last, because these frames arrive at both
		number += 2
		if arrived := free.sends(t, at, number, guardtest.Forbidden(free.Station, bound.Station)); len(arrived) < 10 {
			t.Errorf("from a pod that is not bound, only these arrived at %s: %q", at.name, arrived)
		}
	}
	return fmt.Sprintf("none of %d frames arrived at a pod of its node or of another: foreign MACs and addresses, ARP and neighbor "+
		"discovery for others, tags, redirects, DHCP; the same frames of a pod without the guard did", dropped)
}

// nodeSpace opens the network namespace of a node. It is closed at the end of the test.
func (l *lab) nodeSpace(t testing.TB, node int) netns.NsHandle {
	t.Helper()
	ns, err := netns.GetFromPath(fmt.Sprintf("/run/netns/weftlab-node%d", node))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	return ns
}
