package flows

import (
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/packet"
	"weft/internal/peer"
)

// Frames from 10.40.0.1 to 10.32.0.1, or between fd00::1 and fd00::2.
const (
	macs     = "0a0000000002 0a0000000001 "
	ipv4     = "0800 4500 0028 0000 %s 40 %s 0000 0a280001 0a200001 "
	tcpPorts = "9c40 1451 00000000 00000000 50 10 0000 0000 0000"
	ipv6     = "86dd 60000000 0000 %s 40 fd000000000000000000000000000001 fd000000000000000000000000000002 "
)

func frameOf(t testing.TB, parts ...string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(macs+strings.Join(parts, "")), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func ip4(fragment, protocol string) string {
	return strings.Replace(strings.Replace(ipv4, "%s", fragment, 1), "%s", protocol, 1)
}

func ip6(next string) string { return strings.Replace(ipv6, "%s", next, 1) }

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name        string
		frame       []byte
		protocol    packet.Protocol
		source      string // empty: not IP
		from, to    uint16
		headers     int
		destination string
	}{
		{"tcp", frameOf(t, ip4("0000", "06"), tcpPorts), packet.TCP, "10.40.0.1", 40000, 5201, 14 + 20 + 20, "10.32.0.1"},
		{"tagged", frameOf(t, "8100 0007 ", ip4("0000", "06"), tcpPorts), packet.TCP, "10.40.0.1", 40000, 5201, 18 + 20 + 20, "10.32.0.1"},
		{"udp, first fragment", frameOf(t, ip4("2000", "11"), tcpPorts), packet.UDP, "10.40.0.1", 40000, 5201, 14 + 20 + 8, "10.32.0.1"},
		{"udp, later fragment", frameOf(t, ip4("2001", "11"), tcpPorts), packet.UDP, "10.40.0.1", 0, 0, 14 + 20, "10.32.0.1"},
		{"icmp", frameOf(t, ip4("0000", "01"), tcpPorts), packet.ICMP, "10.40.0.1", 0, 0, 14 + 20, "10.32.0.1"},
		{"ends in the ports", frameOf(t, ip4("0000", "06"), "9c40 14"), packet.TCP, "10.40.0.1", 0, 0, 14 + 20, "10.32.0.1"},
		{"ipv6", frameOf(t, ip6("06"), tcpPorts), packet.TCP, "fd00::1", 40000, 5201, 14 + 40 + 20, "fd00::2"},
		{"ipv6 with options", frameOf(t, ip6("3c"), "0600 010400000000 ", tcpPorts), packet.TCP, "fd00::1", 40000, 5201,
			14 + 40 + 8 + 20, "fd00::2"},
		{"arp", frameOf(t, "0806 0001"), 0, "", 0, 0, 14, ""},
		{"ends in the Ethernet header", []byte{1, 2, 3}, 0, "", 0, 0, 3, ""},
	} {
		var k, want Key
		if c.source != "" {
			want.Source, want.Destination = netip.MustParseAddr(c.source), netip.MustParseAddr(c.destination)
		}
		want.Protocol, want.Ports.Source, want.Ports.Destination = c.protocol, c.from, c.to
		headers := k.parse(c.frame)
		want.EtherType = k.EtherType
		if k != want || headers != c.headers {
			t.Errorf("%s: %+v and %d, want %+v and %d", c.name, k, headers, want, c.headers)
		}
	}
}

// FuzzParse: parse never reads beyond the frame, whatever the bytes are; a header of TCP may be longer than the frame.
func FuzzParse(f *testing.F) {
	f.Add(frameOf(f, ip4("0000", "06"), tcpPorts))
	f.Add(frameOf(f, ip6("3c"), "0600 010400000000 ", tcpPorts))
	f.Fuzz(func(t *testing.T, frame []byte) {
		var k Key
		if n := k.parse(frame); n < 0 || n > len(frame)+60 {
			t.Errorf("%d bytes of headers in %d", n, len(frame))
		}
	})
}

// fixed is a source of random numbers that every test run repeats.
func fixed() func() uint32 { return rand.New(rand.NewPCG(1, 2)).Uint32 }

// TestSamplerExact: while there is little traffic, every frame is in the sample and all counts are exact.
func TestSamplerExact(t *testing.T) {
	s, now := newSampler(fixed()), time.Unix(0, 0)
	id, frame := peer.ID{1}, frameOf(t, ip4("0000", "06"), tcpPorts)
	for range 100 {
		now = now.Add(time.Millisecond)
		for _, path := range []Path{Userspace, Kernel} {
			if weight := s.Pick(path); weight != 1 {
				t.Fatalf("weight %d", weight)
			}
			s.Add(Key{Peer: id, Path: path, Sent: true}, frame, 1000, 0, 1, now)
		}
		s.Add(Key{Peer: id, Path: Kernel}, frame, 54+3000, 1500, 1, now)
		s.Add(Key{Path: Kernel, Sent: true}, frame, 60, 0, 1, now)
	}
	got := s.Take(time.Second)
	if want := (PeerTraffic{Sent: Traffic{100, 100_000}, Received: Traffic{200, 310_800}}); len(got.Kernel) != 1 || got.Kernel[id] != want {
		t.Errorf("by the kernel: %+v", got.Kernel)
	}
	if len(got.Flows) != 4 || got.Flows[0].Bytes != 310_800 || got.Flows[1].Traffic != (Traffic{100, 100_000}) || got.Flows[3].Bytes != 6000 {
		t.Errorf("flows: %+v", got.Flows)
	}
	if again := s.Take(time.Second); len(again.Flows)+len(again.Kernel) != 0 {
		t.Errorf("again: %+v", again)
	}
}

// TestSamplerEstimates: under load N grows until there are some thousand samples a second, and the estimates stay within a tenth of
// the exact counts of large flows. Without load N is 1 again.
func TestSamplerEstimates(t *testing.T) {
	s, now := newSampler(fixed()), time.Unix(0, 0)
	const seconds, perSecond = 4, 500_000
	exact, samples := map[Key]Traffic{}, 0
	frame := frameOf(t, ip4("0000", "06"), tcpPorts)
	r := rand.New(rand.NewPCG(3, 4))
	for range seconds * perSecond {
		now = now.Add(time.Second / perSecond)
		k, length, segment := Key{Peer: peer.ID{1}, Path: Userspace, Sent: true}, 1438, 0
		switch n := r.IntN(10); {
		case n < 2:
			k.Peer = peer.ID{2}
		case n == 2:
			k.Peer, length, segment = peer.ID{3}, 54+60_000, 1384
		}
		as := k
		as.parse(frame)
		sum := exact[as]
		sum.add(trafficOf(length, 54, segment))
		exact[as] = sum
		if weight := s.Pick(k.Path); weight > 0 {
			samples++
			s.Add(k, frame, length, segment, weight, now)
		}
	}
	if samples > seconds*2*window*int(time.Second/minWindow) {
		t.Errorf("%d samples in %d s", samples, seconds)
	}
	got := s.Take(seconds * time.Second)
	for _, f := range got.Flows {
		want := exact[f.Key]
		if ratio := float64(f.Bytes) / float64(want.Bytes); ratio < 0.9 || ratio > 1.1 {
			t.Errorf("peer %s: %d bytes, want %d", f.Peer, f.Bytes, want.Bytes)
		}
		if ratio := float64(f.Frames) / float64(want.Frames); ratio < 0.9 || ratio > 1.1 {
			t.Errorf("peer %s: %d frames, want %d", f.Peer, f.Frames, want.Frames)
		}
	}
	if len(got.Flows) != 3 || got.Flows[0].Peer != (peer.ID{3}) {
		t.Errorf("%d flows, the largest with %s", len(got.Flows), got.Flows[0].Peer)
	}
	if s.Take(time.Second); s.Every(Userspace) != 1 {
		t.Errorf("one of %d without load", s.Every(Userspace))
	}
}

// TestLower: N never gets larger, and so small that there are at most busy samples a second.
func TestLower(t *testing.T) {
	for _, c := range []struct {
		shift uint32
		taken int
		want  uint32
	}{{0, 5000, 0}, {6, 5000, 6}, {6, busy, 6}, {6, busy / 2, 5}, {6, busy/4 - 1, 4}, {6, 1, 0}, {14, 0, 0}, {3, busy * 100, 3}} {
		if got := lower(c.shift, c.taken, time.Second); got != c.want {
			t.Errorf("lower(%d, %d) = %d, want %d", c.shift, c.taken, got, c.want)
		}
	}
}

// TestSamplerBounds: flows and peers beyond the bounds take no memory, and a sample of a known flow no allocation.
func TestSamplerBounds(t *testing.T) {
	s, now := newSampler(fixed()), time.Unix(0, 0)
	frame := frameOf(t, ip4("0000", "06"), tcpPorts)
	for n := range 2 * maxPeers {
		s.Add(Key{Peer: peer.ID{byte(n), byte(n >> 8), 1}, Path: Kernel}, frame, 60, 0, 1, now)
	}
	if n := testing.AllocsPerRun(100, func() { s.Add(Key{Path: Userspace}, frame, 1e6, 0, 1, now) }); n != 0 {
		t.Errorf("%v allocations a sample", n)
	}
	if got := s.Take(time.Second); len(got.Flows) != maxFlows || len(got.Kernel) != maxPeers {
		t.Errorf("%d flows, %d peers", len(got.Flows), len(got.Kernel))
	}
}

func BenchmarkAdd(b *testing.B) {
	s, now := NewSampler(), time.Now()
	frame := frameOf(b, ip4("0000", "06"), tcpPorts)
	for b.Loop() {
		s.Add(Key{Path: Userspace}, frame, 1438, 0, 1, now)
	}
}
