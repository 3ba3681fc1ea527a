package router

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/ether"
	"weft/internal/packet"
	"weft/internal/simnet"
	"weft/router/drop"
	"weft/tap/taptest"
)

// packetOf returns a frame of mac(src) with an IPv4 packet from an address.
func packetOf(dst, src ether.Addr, from netip.Addr) []byte {
	f := frame(dst, src, 'x')
	binary.BigEndian.PutUint16(f[12:], ether.TypeIPv4)
	ip := f[ether.HeaderLen:]
	ip[0] = 0x45
	addr := from.As4()
	copy(ip[packet.IPv4Source:], addr[:])
	return f
}

// TestSourceCheck: sealed frames with the source address of another node's part are counted for their peer, and dropped in the mode
// that enforces; frames from other addresses pass.
func TestSourceCheck(t *testing.T) {
	own, other := netip.MustParseAddr("10.32.1.5"), netip.MustParseAddr("10.32.2.5")
	outside := netip.MustParseAddr("10.32.9.5") // no node gives it out
	for name, c := range map[string]struct {
		mode    SourceCheck
		plain   bool
		counted uint64
		arrive  int
		drops   uint64
	}{
		"zero":       {arrive: 4},
		"off":        {mode: SourceOff, arrive: 4},
		"log":        {mode: SourceLog, counted: 2, arrive: 4},
		"enforce":    {mode: SourceEnforce, counted: 2, arrive: 2, drops: 2},
		"not sealed": {mode: SourceEnforce, plain: true, arrive: 4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := simnet.New(1)
				var nodes []*node
				for n := range 2 {
					cfg := Config{Sources: ownerByNumber{}, SourceCheck: c.mode}
					if !c.plain {
						cfg.Secrets = modes["sealed"]
					}
					nodes = append(nodes, newNodeWith(t, network, n, taptest.Config{MTU: 1422}, cfg))
				}
				runNodes(t, nodes)
				for _, f := range [][]byte{
					packetOf(ether.Broadcast, mac(1), own), packetOf(ether.Broadcast, mac(1), other), packetOf(ether.Broadcast, mac(1), outside),
					arpOf(1, other, own),
				} {
					nodes[1].dev.Inject(f)
					time.Sleep(time.Second)
				}
				synctest.Wait()
				arrived := 0
				for _, ok := nodes[0].dev.TryNext(); ok; _, ok = nodes[0].dev.TryNext() {
					arrived++
				}
				s := nodes[0].Stats()
				foreign := s.Peers[0].Foreign
				if arrived != c.arrive || foreign.Frames != c.counted || s.Drops[drop.ForeignSource] != c.drops {
					t.Errorf("%d frames arrived, counted %+v, drops %v", arrived, foreign, s.Drops)
				}
				if c.counted > 0 && (foreign.Last != other || foreign.Until.Sub(foreign.First) < time.Second) {
					t.Errorf("reported %+v, want %s for more than a second", foreign, other)
				}
			})
		})
	}
}

// TestSourceCheckForgets: a verdict follows the ring.
func TestSourceCheckForgets(t *testing.T) {
	n := newNodeOf(t, simnet.New(1), 0, taptest.Config{MTU: 1422})
	n.SetPeers([]Peer{peerOf(1), peerOf(2)})
	v := n.peers.Load().byID[peerOf(1).ID]
	owners := &movingOwner{}
	c := sourceChecker{owners: owners}
	f, now := packetOf(ether.Broadcast, mac(1), netip.MustParseAddr("10.32.1.5")), time.Unix(1000, 0)
	for i, want := range []bool{false, true} {
		owners.owner = i + 1
		if i > 0 {
			if _, foreign := c.isForeign(f, v); foreign {
				t.Error("the verdict is not remembered")
			}
		}
		c.begin(now.Add(time.Duration(i) * sourceCacheAge))
		if _, foreign := c.isForeign(f, v); foreign != want {
			t.Errorf("owned by node %d: foreign %v", owners.owner, foreign)
		}
	}
	if n := testing.AllocsPerRun(10, func() { c.isForeign(f, v) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkReceiveChecked is BenchmarkReceive with and without the check of source addresses, of one flow.
func BenchmarkReceiveChecked(b *testing.B) {
	for name, owners := range map[string]AddressOwners{"off": nil, "log": ownerByNumber{}} {
		b.Run(name, func(b *testing.B) {
			h := newHotPath(b, 5, modes["sealed"]...)
			h.in.sources.owners = owners
			h.receiveFrom(append(packetOf(mac(1), mac(2), netip.MustParseAddr("10.32.1.5")), make([]byte, 1420-64)...))
			b.SetBytes(int64(inDatagrams * len(h.unicast)))
			b.ReportAllocs()
			for b.Loop() {
				h.receive(b)
			}
		})
	}
}

// BenchmarkIsForeign is the cost of the check alone, of 100 flows.
func BenchmarkIsForeign(b *testing.B) {
	n := newNodeOf(b, simnet.New(1), 0, taptest.Config{MTU: 1422})
	n.SetPeers([]Peer{peerOf(1)})
	v, c := n.peers.Load().byID[peerOf(1).ID], sourceChecker{owners: ownerByNumber{}}
	c.begin(time.Unix(1000, 0))
	var frames [][]byte
	for i := range 100 {
		frames = append(frames, packetOf(mac(1), mac(2), netip.AddrFrom4([4]byte{10, 32, 1, byte(i)})))
	}
	i := 0
	for b.Loop() {
		c.isForeign(frames[i%len(frames)], v)
		i++
	}
}
