package router

import (
	"bytes"
	"encoding/binary"
	"testing"
	"testing/synctest"

	"weft/internal/ether"
	"weft/internal/packet"
	"weft/internal/simnet"
	"weft/router/drop"
	"weft/router/ecn"
	"weft/router/relay"
	"weft/router/segmenter"
	"weft/router/underlay"
	"weft/router/wire"
	"weft/tap"
	"weft/tap/taptest"
)

const af41 = 34 << 2 // a DSCP, as a TOS without ECN

// withTOS returns a frame from mac(1) to mac(2) with an IPv4 packet with the given TOS.
func withTOS(tos uint8) []byte {
	return setTOS(superframe(2, 1, 40, 40).Data, tos)
}

// setTOS sets the TOS of the IPv4 packet in the frame f.
func setTOS(f []byte, tos uint8) []byte {
	ip := f[ether.HeaderLen:]
	ip[packet.IPv4TOS] = tos
	binary.BigEndian.PutUint16(ip[packet.IPv4Checksum:], 0)
	binary.BigEndian.PutUint16(ip[packet.IPv4Checksum:], ^fold(sum(0, ip[:packet.IPv4MinLen])))
	return f
}

// ip6With is withTOS for IPv6.
func ip6With(tos uint8) []byte {
	f := frame(mac(2), mac(1), 0)
	binary.BigEndian.PutUint16(f[12:], ether.TypeIPv6)
	binary.BigEndian.PutUint32(f[14:], 6<<28|uint32(tos)<<20)
	return f
}

// TestOuterTOS: datagrams leave with the ECN of the frame in them, and with its DSCP if that is copied.
func TestOuterTOS(t *testing.T) {
	super := superframe(2, 1, 30000, 1350)
	setTOS(super.Data, af41|ecn.ECT0)
	ipv6 := tap.Frame{Data: ip6With(af41 | ecn.ECT1)}
	for _, tt := range []struct {
		name  string
		frame tap.Frame
		tos   uint8
	}{
		{"Not-ECT", tap.Frame{Data: withTOS(af41)}, af41},
		{"ECT(0)", tap.Frame{Data: withTOS(af41 | ecn.ECT0)}, af41 | ecn.ECT0},
		{"CE", tap.Frame{Data: withTOS(ecn.CE)}, ecn.CE},
		{"IPv6", ipv6, af41 | ecn.ECT1},
		{"superframe", super, af41 | ecn.ECT0},
		{"ARP", tap.Frame{Data: arpOf(1, addrOf(1).Addr(), addrOf(2).Addr())}, 0},
		{"broadcast", tap.Frame{Data: append(ether.Broadcast[:], withTOS(af41 | ecn.ECT0)[6:]...)}, af41 | ecn.ECT0},
	} {
		for mode, secrets := range modes {
			for _, dscp := range []bool{false, true} {
				t.Run(tt.name+"/"+mode, func(t *testing.T) {
					n := newNodeWith(t, simnet.New(1), 0, taptest.Config{MTU: 1438, Features: allFeatures}, Config{Secrets: secrets, CopyDSCP: dscp})
					n.SetPeers([]Peer{peerOf(1)})
					connectRemote(t, n, 1, secrets...)
					conn := &tosConn{Conn: n.conn}
					o := newOutbound(n.Engine, n.dev.Queues()[0], tapWriter{}, conn)
					n.dev.InjectQueue(0, tt.frame)
					if _, err := o.step(); err != nil {
						t.Fatal(err)
					}
					want := tt.tos
					if !dscp {
						want &= ecn.Mask
					}
					if len(conn.tos) == 0 {
						t.Fatal("nothing was sent")
					}
					for _, got := range conn.tos {
						if got != want {
							t.Errorf("copy %v: outer TOS %02x, want %02x", dscp, got, want)
						}
					}
				})
			}
		}
	}
}

// tosConn is a socket that discards what it sends, and records its TOS.
type tosConn struct {
	underlay.Conn
	tos []uint8
}

func (c *tosConn) WriteBatch(batch []underlay.Datagram) (int, error) {
	for _, d := range batch {
		c.tos = append(c.tos, d.TOS)
	}
	return len(batch), nil
}

// TestInnerECN: a mark of the underlay reaches the packet, and a packet without ECN is dropped instead, and counted for its
// peer. Other combinations and the outer DSCP have no effect, neither have marks on frames without IP.
func TestInnerECN(t *testing.T) {
	arp := arpOf(1, addrOf(1).Addr(), addrOf(2).Addr())
	for _, tt := range []struct {
		name        string
		frame, want []byte // want nil: dropped
		outer       uint8
	}{
		{"no mark", withTOS(ecn.ECT0), withTOS(ecn.ECT0), ecn.ECT0},
		{"CE", withTOS(af41 | ecn.ECT0), withTOS(af41 | ecn.CE), ecn.CE},
		{"CE of IPv6", ip6With(af41 | ecn.ECT1), ip6With(af41 | ecn.CE), 46<<2 | ecn.CE},
		{"ECT(1)", withTOS(ecn.ECT0), withTOS(ecn.ECT1), ecn.ECT1},
		{"bleached", withTOS(ecn.CE), withTOS(ecn.CE), ecn.NotECT},
		{"CE, Not-ECT", withTOS(af41), nil, ecn.CE},
		{"CE, Not-ECT, IPv6", ip6With(0), nil, ecn.CE},
		{"CE, ARP", arp, arp, ecn.CE},
	} {
		for mode, secrets := range modes {
			t.Run(tt.name+"/"+mode, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					network := simnet.New(1)
					n := newNodeOf(t, network, 0, taptest.Config{MTU: 1438}, secrets...)
					runNodes(t, []*node{n})
					socket, err := network.Listen(addrOf(1))
					if err != nil {
						t.Fatal(err)
					}
					n.SetPeers([]Peer{peerOf(1)})
					synctest.Wait()
					other := connectRemote(t, n, 1, secrets...)
					datagram := other.plain(bodyOf(tt.frame))
					if secrets != nil {
						datagram = other.sealed(wire.TypeFrame, bodyOf(tt.frame))
					}
					if _, err := socket.WriteBatch([]underlay.Datagram{{Addr: addrOf(0), Buf: datagram, TOS: tt.outer}}); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					got, arrived := n.dev.TryNext()
					if arrived != (tt.want != nil) || !bytes.Equal(got.Data, tt.want) {
						t.Errorf("got %v\n%x, want\n%x", arrived, got.Data, tt.want)
					}
					s := n.Stats()
					if dropped := s.Peers[0].Drops[drop.NotECT]; (dropped == 1) != (tt.want == nil) || s.Drops[drop.NotECT] != dropped {
						t.Errorf("drops %v, of the peer %v", s.Drops, s.Peers[0].Drops)
					}
				})
			})
		}
	}
}

// TestMarkedSegments: of a superframe exactly the segments arrive marked that the underlay has marked; those between them
// arrive as one superframe each.
func TestMarkedSegments(t *testing.T) {
	super := superframe(2, 1, 20*1350+7, 1350)
	setTOS(super.Data, ecn.ECT0)
	for name, tt := range map[string]struct {
		marked func(i int) bool
		frames int // written to the TAP
	}{
		"none":      {func(int) bool { return false }, 1},
		"all":       {func(int) bool { return true }, 1},
		"first":     {func(i int) bool { return i == 0 }, 2},
		"middle":    {func(i int) bool { return i == 7 || i == 8 }, 3},
		"last":      {func(i int) bool { return i == 20 }, 2},
		"every 2nd": {func(i int) bool { return i%2 == 1 }, 21},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNodeOf(t, simnet.New(1), 0, taptest.Config{MTU: 1438, Features: allFeatures}, modes["sealed"]...)
			n.SetPeers([]Peer{peerOf(1)})
			other := connectRemote(t, n, 1, modes["sealed"]...)
			in := newInbound(n.Engine, n.conn, tapWriter{queue: n.dev.Queues()[0]})
			in.begin()
			f, reason := examine(super, 1438+18)
			if reason != 0 {
				t.Fatal(reason)
			}
			counter, _ := other.session.Reserve(f.frames)
			meta := segmenter.MetaOf(&f.layout, false)
			want := cut(t, super)
			for i := range f.frames {
				meta.Index, meta.Last = uint16(i), i == f.frames-1
				body := make([]byte, wire.MetaLen, 2000)
				meta.Put(body)
				body = append(append(body, f.Data[:f.layout.HeaderLen]...), f.layout.Segment(f.Data, i)...)
				d := underlay.Datagram{
					Addr: addrOf(1), Buf: other.session.Seal(nil, wire.TypeFrame, counter+uint64(i), body), TOS: ecn.ECT0,
				}
				if tt.marked(i) {
					d.TOS = ecn.CE
					setTOS(want[i], ecn.CE)
				}
				if err := in.split(&d); err != nil {
					t.Fatal(err)
				}
			}
			if err := in.flush(); err != nil {
				t.Fatal(err)
			}
			var got [][]byte
			frames := 0
			for g, ok := n.dev.TryNext(); ok; g, ok = n.dev.TryNext() {
				got, frames = append(got, cut(t, g)...), frames+1
			}
			if !equalFrames(got, want) || frames != tt.frames {
				t.Errorf("%d segments in %d frames, want %d in %d, or they differ", len(got), frames, len(want), tt.frames)
			}
		})
	}
}

// TestRelayedTOS: a relay sends on with the ECN of the datagram that it received, and with its DSCP if it copies it. At the
// end of the path the mark reaches the packet.
func TestRelayedTOS(t *testing.T) {
	for _, dscp := range []bool{false, true} {
		secrets := modes["sealed"]
		n := newNodeWith(t, simnet.New(1), 0, taptest.Config{MTU: 1438}, Config{Secrets: secrets, CopyDSCP: dscp})
		n.SetPeers([]Peer{peerOf(1), peerOf(2)})
		from, source := connectRemote(t, n, 1, secrets...), connectRemote(t, n, 2, secrets...)
		conn := &tosConn{Conn: n.conn}
		in := newInbound(n.Engine, conn, tapWriter{queue: n.dev.Queues()[0]})
		in.begin()
		relayed := func(r wire.Relay, datagram []byte, tos uint8) {
			t.Helper()
			body := make([]byte, wire.RelayLen, wire.RelayLen+len(datagram))
			r.Put(body)
			d := underlay.Datagram{Addr: addrOf(1), Buf: from.sealed(wire.TypeRelay, append(body, datagram...)), TOS: tos}
			if err := in.split(&d); err != nil {
				t.Fatal(err)
			}
		}
		want := []uint8{ecn.ECT0, ecn.CE, 0}
		for i := range want {
			if dscp {
				want[i] |= af41
			}
			relayed(wire.Relay{Hops: 1, Source: identityOf(1).id, Destination: identityOf(2).id}, make([]byte, 50), af41|want[i])
		}
		relayed(wire.Relay{Hops: 1, Source: identityOf(2).id, Destination: n.self},
			source.sealed(wire.TypeFrame, bodyOf(withTOS(ecn.ECT0))), ecn.CE)
		if err := in.forward.flush(); err != nil {
			t.Fatal(err)
		}
		if err := in.flush(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(conn.tos, want) {
			t.Errorf("copy %v: relayed with TOS %x, want %x", dscp, conn.tos, want)
		}
		if got, ok := n.dev.TryNext(); !ok || !bytes.Equal(got.Data, withTOS(ecn.CE)) {
			t.Errorf("relayed to this node: %v, %x", ok, got.Data)
		}
		p, out := relay.NewPacker(0), n.peers.Load().byID[peerOf(1).ID].egress.Load()
		packed, ok := p.Pack(&underlay.Datagram{Buf: make([]byte, 50), TOS: af41}, out.session, out.addr, wire.Relay{Hops: 2})
		if !ok || packed.TOS != af41 {
			t.Errorf("a datagram with TOS %02x is sent to a relay with %02x", af41, packed.TOS)
		}
	}
}
