package e2e

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/guard/guardtest"
	"weft/internal/leases/holder"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// vxlanPort is the port of the kernel path of nodes with default ports, and vxlanSource a port from which its devices may send.
const (
	vxlanPort   = 6785
	vxlanSource = 900
)

// vniOf returns the VNI of a node's kernel path.
func vniOf(t *testing.T, n *cluster.Node) uint32 {
	t.Helper()
	found := regexp.MustCompile(`vxlan id (\d+)`).FindStringSubmatch(labtest.Run(t, n.Space, "ip", "-d", "link", "show", kernelDevice))
	if found == nil {
		t.Fatalf("%s has no VNI", kernelDevice)
	}
	vni, err := strconv.ParseUint(found[1], 10, 24)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(vni)
}

// nearestBridge is the group of LLDP. A bridge passes its frames to the host as if they had come over no bridge, before netfilter.
var nearestBridge = ether.Addr{0x01, 0x80, 0xc2, 0, 0, 0x0e}

// nested returns the frames with which a pod sends another frame in VXLAN to a host: whole, behind options, and in fragments.
func nested(from, to ether.Addr, source, destination netip.Addr, port uint16, vni uint32, inner []byte) (frames []guardtest.Frame) {
	payload := binary.BigEndian.AppendUint32([]byte{8, 0, 0, 0}, vni<<8)
	payload = append(payload, inner...)
	datagram := binary.BigEndian.AppendUint16(nil, vxlanSource)
	datagram = binary.BigEndian.AppendUint16(datagram, port)
	datagram = binary.BigEndian.AppendUint16(datagram, uint16(8+len(payload)))
	datagram = append(append(datagram, 0, 0), payload...)
	packet := func(options []byte, id, offset uint16, body []byte) {
		header := []byte{byte(0x45 + len(options)/4), 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0}
		header = append(append(append(header, source.AsSlice()...), destination.AsSlice()...), options...)
		binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(body)))
		binary.BigEndian.PutUint16(header[4:], id)
		binary.BigEndian.PutUint16(header[6:], offset)
		var sum uint32
		for i := 0; i < len(header); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(header[i:]))
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		binary.BigEndian.PutUint16(header[10:], ^uint16(sum))
		data := append(slices.Concat(to[:], from[:]), 8, 0)
		frames = append(frames, guardtest.Frame{Name: "VXLAN from " + source.String() + " to " + destination.String(),
			Data: slices.Concat(data, header, body)})
	}
	packet(nil, 1, 0, datagram)
	packet([]byte{1, 1, 1, 0}, 2, 0, datagram)
	packet(nil, 3, 0x2000, datagram[:16]) // more fragments
	packet(nil, 3, 2, datagram[16:])
	packet(nil, 4, 2, datagram[16:])
	packet(nil, 4, 0x2000, datagram[:16])
	return frames
}

// TestGroupsOfBridges: a bound pod has no effect with frames to the groups that bridges do not forward, of which some pass no rule of the
// bridge family: the bridge does not learn their sources, and the host takes no packet in them.
func TestGroupsOfBridges(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a")
	start(t, nodes, "--guard", "pods")
	bound, other := newStation(t, attach(t, nodes[0], "bound")), newStation(t, attach(t, nodes[0], "other"))
	bound.warmUp(t, other)
	gateway := bridgeStation(t, nodes[0])
	udp := func() string { return labtest.Run(t, nodes[0].Space, "nstat", "-asz", "UdpNoPorts", "UdpInDatagrams") }
	before := udp()
	var frames []guardtest.Frame
	for last := range byte(16) {
		to := ether.Addr{0x01, 0x80, 0xc2, 0, 0, last}
		for _, from := range []ether.Addr{other.MAC, bound.MAC} {
			frames = append(frames, nested(from, to, bound.IP4, gateway.IP4, 9, 0, make([]byte, 60))...)
			frames = append(frames, nested(from, to, nodes[0].Addr(), netip.MustParseAddr("255.255.255.255"), 9, 0, make([]byte, 60))...)
		}
	}
	bound.seen(t, other, frames)
	if after := udp(); after != before {
		t.Errorf("datagrams to the host, before\n%s\nafter\n%s", before, after)
	}
	for line := range strings.Lines(labtest.Run(t, nodes[0].Space, "bridge", "fdb", "show", "br", "weave")) {
		if strings.HasPrefix(line, other.MAC.String()) && strings.Contains(line, portOf(t, bound)) {
			t.Errorf("the bridge looks for the other pod at the port of the bound one: %s", line)
		}
	}
	labtest.Until(t, patience, func() error { // counts may be old for some seconds
		if query[api.Status](t, nodes[0], "status").Guard.Dropped["group"] == 0 {
			return errors.New("nothing is counted as dropped")
		}
		return nil
	})
}

// portOf returns the name of the host end of a pod that "weft attach" attached.
func portOf(t *testing.T, s *station) string {
	t.Helper()
	name, _ := holder.ForNamespace(s.Path(), "eth0").HostLink()
	return name
}

// TestNestedFrames: no pod injects frames into the overlay by the port of the kernel path or of the router, of its host or of another one,
// with the address of a peer, masqueraded, in fragments, or through the gateway of another node.
func TestNestedFrames(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	near, other, far := newStation(t, attach(t, nodes[0], "near")), newStation(t, attach(t, nodes[0], "other")),
		newStation(t, attach(t, nodes[1], "far"))
	waitDatapath(t, nodes[0], "b", api.DatapathKernel)
	waitDatapath(t, nodes[1], "a", api.DatapathKernel)
	near.warmUp(t, other, far)
	vni := vniOf(t, nodes[0])
	inner := func(n int) []byte {
		b := append([]byte{2, 0xcc, 0, 0, 0, byte(n)}, 2, 0xcc, 1, 0, 0, byte(n), 0x88, 0xb5)
		return append(b, make([]byte, 60-len(b))...)
	}
	underlay := []netip.Addr{nodes[0].Addr(), nodes[1].Addr()}
	var frames []guardtest.Frame
	names := map[ether.Addr]string{}
	for _, through := range nodes {
		gateway := bridgeStation(t, through)
		for _, source := range append(slices.Clone(underlay), near.IP4, far.IP4) {
			for _, destination := range append(slices.Clone(underlay), gateway.IP4) {
				for _, port := range []uint16{vxlanPort, dataPort} {
					in := inner(len(names))
					names[ether.Addr(in[:6])] = source.String() + " to " + destination.String() + " through " + through.Label()
					frames = append(frames, nested(near.MAC, gateway.MAC, source, destination, port, vni, in)...)
					frames = append(frames, nested(near.MAC, nearestBridge, source, destination, port, vni, in)...)
				}
			}
		}
	}
	for _, at := range []*station{other, far} {
		for to := range near.seen(t, at, frames) {
			if name, injected := names[to]; injected {
				t.Errorf("%s got the nested frame from %s", at.Name(), name)
			}
		}
		near.reaches(t, at.addr)
		at.reaches(t, near.addr)
	}
	// What was sent first has arrived by now.
	for _, at := range []*station{other, far} {
		for to := range near.seen(t, at, nil) {
			if name, injected := names[to]; injected {
				t.Errorf("%s got the nested frame from %s", at.Name(), name)
			}
		}
	}
	// The frames are right: the host of a peer may send them.
	f := newForger(t, nodes[1].Host)
	in := inner(255)
	f.send(t, netip.AddrPortFrom(underlay[1], vxlanSource), netip.AddrPortFrom(underlay[0], vxlanPort),
		append(binary.BigEndian.AppendUint32([]byte{8, 0, 0, 0}, vni<<8), in...))
	labtest.Until(t, patience, func() error {
		if far.seen(t, other, nil)[ether.Addr(in[:6])] {
			return nil
		}
		return errors.New("the frame of the peer has not arrived")
	})
}
