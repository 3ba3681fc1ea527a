package direct

import (
	"net/netip"
	"slices"
	"testing"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/carrier"
)

// packets returns the packets of a probe in both families.
func packets(p carrier.Probe) (list []packet) {
	for _, v := range variants([]family{ip4, ip6}) {
		q := packet{netip.MustParseAddr("10.32.0.1"), netip.MustParseAddr("10.40.0.1"), v, p}
		if v.family == ip6 {
			q.src, q.dst = netip.MustParseAddr("fd32::1"), netip.MustParseAddr("fd32::2")
		}
		list = append(list, q)
	}
	return list
}

// TestPacket: a packet of TCP is as long as those of pods; packets are read again, also where they were cut off behind the probe.
func TestPacket(t *testing.T) {
	const mtu = 1422
	for _, want := range packets(carrier.Probe{Willing: true, From: peer.ID{1}, To: peer.ID{2}, Nonce: 7, Echo: 8}) {
		frame, err := want.frame(ether.Addr{6}, mtu)
		if err != nil || (len(frame) == ether.HeaderLen+mtu) == want.variant.udp || len(frame) > ether.HeaderLen+mtu {
			t.Fatalf("%+v: %d bytes, %v", want, len(frame), err)
		}
		for _, b := range [][]byte{frame[ether.HeaderLen:], frame[ether.HeaderLen:min(len(frame), ether.HeaderLen+copied)]} {
			if got, err := parsePacket(b); err != nil || got != want {
				t.Errorf("%+v, %v, want %+v", got, err, want)
			}
		}
	}
}

// FuzzPacket reads packets that anyone may send to the address of probes.
func FuzzPacket(f *testing.F) {
	for _, p := range packets(carrier.Probe{From: peer.ID{1}, Nonce: 7}) {
		frame, err := p.frame(ether.Addr{6}, minMTU)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame[ether.HeaderLen:])
	}
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parsePacket(b) })
}

// TestCollector: a probe has arrived when all of its packets have, in any order, and once.
func TestCollector(t *testing.T) {
	want := bits([]family{ip4, ip6})
	first, second := packets(carrier.Probe{From: peer.ID{1}, Nonce: 1}), packets(carrier.Probe{From: peer.ID{1}, Nonce: 2})
	reply, other := packets(carrier.Probe{From: peer.ID{1}, Reply: true, Echo: 1}), packets(carrier.Probe{From: peer.ID{2}, Nonce: 1})
	var c collector
	add := func(list ...packet) (complete int) {
		for _, p := range list {
			if c.add(p, want) {
				complete++
			}
		}
		return complete
	}
	for i, step := range []struct {
		packets []packet
		want    int
	}{
		{first[:3], 0}, {other[:2], 0}, {reply[1:], 0}, {first[2:], 1}, {other[1:], 1}, {reply[:1], 1},
		{first[:3], 0}, {second[:1], 0}, {first[3:], 0}, {second, 1}, {slices.Concat(second, second), 2},
	} {
		if got := add(step.packets...); got != step.want {
			t.Errorf("step %d: %d probes are complete, want %d", i, got, step.want)
		}
	}
	add(first[0], other[0])
	c.keepOnly(func(id peer.ID) bool { return id == peer.ID{2} })
	if len(c.parts) != 1 {
		t.Errorf("%d parts, want that of the known peer", len(c.parts))
	}
}

// TestTarget: both nodes come to the same families, and IPv6 over IPv4 needs the link-local addresses of both.
func TestTarget(t *testing.T) {
	addr := netip.MustParseAddr
	four, six, link, far := addr("10.32.0.1"), addr("fd32::1"), addr("fe80::1"), addr("fe80::2")
	node := func(addrs ...netip.Addr) (n Node) {
		for _, a := range addrs {
			if a.IsLinkLocalUnicast() {
				n.Link = a
			} else {
				n.Probes = append(n.Probes, a)
			}
		}
		return n
	}
	for name, tt := range map[string]struct {
		underlay string
		a, b     Node
		want     []family
	}{
		"IPv4":                      {"192.0.2.1", node(four), node(four, six, link), []family{ip4}},
		"both over IPv4":            {"192.0.2.1", node(four, six, link), node(six, far, four), []family{ip4, ip6}},
		"the link of the other one": {"192.0.2.1", node(four, six, link), node(six, link, four), []family{ip4}},
		"without a link-local one":  {"192.0.2.1", node(four, six), node(four, six, link), []family{ip4}},
		"both over IPv6":            {"2001:db8::1", node(four, six), node(four, six), []family{ip4, ip6}},
		"nothing in common":         {"2001:db8::1", node(four), node(six), nil},
		"one that takes no part":    {"192.0.2.1", node(four), node(), nil},
	} {
		p := carrier.Peer{Addr: addr(tt.underlay)}
		if got, back := newTarget(p, tt.a, tt.b), newTarget(p, tt.b, tt.a); !slices.Equal(got.families(), tt.want) ||
			!slices.Equal(back.families(), tt.want) {
			t.Errorf("%s: %v and %v, want %v", name, got.families(), back.families(), tt.want)
		}
	}
}
