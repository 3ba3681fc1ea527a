package router

import (
	"bytes"
	"encoding/binary"
	"testing"
	"testing/synctest"

	"weft/internal/simnet"
	"weft/router/session"
	"weft/router/wire"
	"weft/tap"
	"weft/tap/taptest"
	"weft/tap/virtio"
)

// superframe returns a TCP superframe over IPv4 from mac(src) to mac(dst) with payload bytes in segments of size bytes.
func superframe(dst, src byte, payload, size int) tap.Frame {
	const headers = 14 + 20 + 20
	f := frame(mac(int(dst)), mac(int(src)), 0)
	f = append(f[:14], make([]byte, headers-14+payload)...)
	binary.BigEndian.PutUint16(f[12:], 0x0800)
	ip := f[14:]
	ip[0], ip[8], ip[9] = 0x45, 64, 6
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	copy(ip[12:], []byte{10, 32, 0, src, 10, 32, 0, dst})
	binary.BigEndian.PutUint16(ip[10:], ^fold(sum(0, ip[:20])))
	tcp := ip[20:]
	copy(tcp, []byte{0x30, 0x39, 0, 80, 0, 0, 1, 0, 0, 0, 0, 9, 0x50, 0x18, 1, 0})
	binary.BigEndian.PutUint16(tcp[16:], fold(sum(6+uint32(len(tcp)), ip[12:20])))
	for i := range payload {
		f[headers+i] = byte(i * 7)
	}
	return tap.Frame{
		Offload: virtio.Header{
			Flags: virtio.FlagNeedsChecksum, GSOType: virtio.GSOTCPv4, HdrLen: headers, GSOSize: uint16(size),
			CsumStart: 34, CsumOffset: 16,
		},
		Data: f,
	}
}

func sum(s uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	return s
}

func fold(s uint32) uint16 {
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// cut returns the plain frames that f stands for.
func cut(t testing.TB, f tap.Frame) (frames [][]byte) {
	t.Helper()
	data := bytes.Clone(f.Data)
	for _, piece := range f.More {
		data = append(data, piece...)
	}
	if f.Offload.GSOType == virtio.GSONone {
		virtio.CompleteChecksum(f.Offload, data)
		return [][]byte{data}
	}
	l, err := virtio.Inspect(f.Offload, data)
	if err != nil {
		t.Fatal(err)
	}
	for i := range l.Segments {
		frames = append(frames, l.Cut(nil, data, i))
	}
	return frames
}

// TestSuperframes: the frames that a superframe stands for arrive, whatever the devices support.
func TestSuperframes(t *testing.T) {
	for _, tt := range []struct {
		name          string
		payload, size int
		receiver      virtio.Features
	}{
		{"whole", 65000, 1384, allFeatures},
		{"small MSS", 65000, 48, allFeatures},
		{"one segment", 100, 1384, allFeatures},
		{"to a plain device", 65000, 1384, 0},
		{"to a device without TSO", 65000, 1384, virtio.FeatureChecksum},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, nodes := runOf(t, taptest.Config{MTU: 1438, Features: allFeatures}, taptest.Config{MTU: 1438, Features: tt.receiver})
				f := superframe(2, 1, tt.payload, tt.size)
				nodes[0].dev.InjectQueue(0, f)
				synctest.Wait()
				var got [][]byte
				for {
					g, ok := nodes[1].dev.TryNext()
					if !ok {
						break
					}
					if tt.receiver == 0 && !g.Offload.IsPlain() {
						t.Fatalf("a plain device received %+v", g.Offload)
					}
					got = append(got, cut(t, g)...)
				}
				if want := cut(t, f); !equalFrames(got, want) {
					t.Errorf("%d frames arrived, want %d, or they differ", len(got), len(want))
				}
				if s := nodes[0].Stats(); len(s.Drops) != 0 {
					t.Errorf("drops %v", s.Drops)
				}
			})
		})
	}
}

func equalFrames(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// TestSegmenterNeverOverflows: a run of superframes of the smallest segments is sent in several batches.
func TestSegmenterNeverOverflows(t *testing.T) {
	h := newHotPath(t, 1)
	f := superframe(2, 1, 65000, 48)
	for range 8 {
		h.dev.InjectQueue(0, f)
	}
	if _, err := h.out.step(); err != nil {
		t.Fatal(err)
	}
	if s := h.Stats(); len(s.Drops) != 0 || s.Peers[0].TxFrames == 0 {
		t.Errorf("drops %v, %d frames", s.Drops, s.Peers[0].TxFrames)
	}
}

// TestSegments: the datagrams of a superframe are as specified: headers repeated, payload cut, one after the other.
// Sealed and opened again they are the same, and the superframe is unchanged.
func TestSegments(t *testing.T) {
	for _, secrets := range [][]session.Secret{nil, {{Key: [session.KeyLen]byte{1}}}} {
		n := newNodeOf(t, simnet.New(1), 0, taptest.Config{MTU: 1438}, secrets...)
		n.SetPeers([]Peer{peerOf(1)})
		other := connectRemote(t, n, 1, secrets...)
		f, reason := examine(superframe(2, 1, 3000, 1384), 1438+18)
		if reason != 0 {
			t.Fatal(reason)
		}
		w := copyOf(&f, n.now())
		c := newEncoder(n.Engine, n.conn)
		v := n.peers.Load().byID[peerOf(1).ID]
		if err := c.carry(&w.outgoing, w.room, v, v.egress.Load(), true); err != nil {
			t.Fatal(err)
		}
		d := c.data.datagrams[0]
		all := bytes.Clone(d.Buf)
		for _, piece := range d.More {
			all = append(all, piece...)
		}
		if !bytes.Equal(w.Data, f.Data) {
			t.Error("the superframe was changed")
		}
		i := 0
		for first := uint64(0); len(all) > 0; i++ {
			datagram := all[:min(d.SegmentSize, len(all))]
			all = all[len(datagram):]
			header, body, err := wire.Parse(datagram)
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				first = header.Counter
			}
			if secrets != nil {
				if body, _, err = other.session.Open(header, datagram); err != nil {
					t.Fatal(err)
				}
			}
			meta, segment, err := wire.ParseMeta(body)
			if err != nil || header.Counter != first+uint64(i) || int(meta.Index) != i || meta.Last != (i == 2) || meta.Kind != wire.KindTCPv4 {
				t.Fatalf("segment %d: %+v, %+v, %v", i, header, meta, err)
			}
			if want := append(bytes.Clone(f.Data[:54]), f.layout.Segment(f.Data, i)...); !bytes.Equal(segment, want) {
				t.Fatalf("segment %d differs", i)
			}
		}
		if i != 3 {
			t.Errorf("%d segments, want 3", i)
		}
	}
}
