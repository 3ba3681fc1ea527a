package mesh

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"

	"weft/internal/identity"
	"weft/internal/peer"
	"weft/mesh/seal"
	"weft/mesh/sieve"
)

// hostile is a member that has the secret and says what it likes in the protocol. Its node takes part honestly besides.
type hostile struct {
	*node
	t   *testing.T
	rng *rand.Rand
	// names are those of members in memberlist, and metas what they publish.
	names []string
	metas [][]byte
}

func newHostile(t *testing.T, n *node, members ...*node) *hostile {
	h := &hostile{node: n, t: t, rng: rand.New(rand.NewPCG(7, 7))}
	for _, m := range append(members, n) {
		h.names = append(h.names, nodeName(m.cfg.Identity.ID, m.transport.addr))
		h.metas = append(h.metas, m.meta().Encode())
	}
	return h
}

func (h *hostile) bytes(most int) []byte {
	b := make([]byte, h.rng.IntN(most+1))
	for i := range b {
		b[i] = byte(h.rng.Uint32())
	}
	return b
}

// number returns a number at the edges of what fields hold.
func (h *hostile) number() uint32 {
	most := sieve.MaxIncarnation(time.Now())
	return []uint32{1, 2, 3, 1 << 16, most, most + 1, math.MaxUint32 - 1, math.MaxUint32}[h.rng.IntN(8)]
}

// victim returns the name, address and metadata of a member, or of a node that does not exist; sometimes the metadata is changed.
func (h *hostile) victim() (name string, at netip.AddrPort, meta []byte) {
	i := h.rng.IntN(len(h.names) + 1)
	if i == len(h.names) {
		n := madeUp(h.rng.IntN(100), h.rng.IntN(100))
		return n.Name, gossipAddr(n), n.Meta
	}
	name, meta = h.names[i], slices.Clone(h.metas[i])
	at, _ = netip.ParseAddrPort(name[17:])
	if h.rng.IntN(2) == 0 {
		meta[h.rng.IntN(len(meta))] ^= byte(1 + h.rng.IntN(255))
	}
	return name, at, meta
}

// encoded returns a message of memberlist's in its canonical encoding.
func (h *hostile) encoded(kind byte, fields map[string]any) []byte {
	buf := bytes.NewBuffer([]byte{kind})
	handle := &codec.MsgpackHandle{}
	handle.Canonical = true
	if err := codec.NewEncoder(buf, handle).Encode(fields); err != nil {
		h.t.Fatal(err)
	}
	return buf.Bytes()
}

// packet returns a packet for memberlist.
func (h *hostile) packet() []byte {
	name, at, meta := h.victim()
	from, fromAt, _ := h.victim()
	addr, fromAddr := at.Addr().AsSlice(), fromAt.Addr().AsSlice()
	switch kind := byte(h.rng.IntN(10)); kind {
	case 0:
		return h.encoded(kind, map[string]any{"SeqNo": h.number(), "Node": name,
			"SourceAddr": fromAddr, "SourcePort": fromAt.Port(), "SourceNode": from})
	case 1:
		return h.encoded(kind, map[string]any{"SeqNo": h.number(), "Target": addr, "Port": at.Port(), "Node": name, "Nack": h.rng.IntN(2) == 0,
			"SourceAddr": fromAddr, "SourcePort": fromAt.Port(), "SourceNode": from})
	case 2:
		return h.encoded(kind, map[string]any{"SeqNo": h.number(), "Payload": h.bytes(64)})
	case 3, 5:
		return h.encoded(kind, map[string]any{"Incarnation": h.number(), "Node": name, "From": from})
	case 4:
		return h.encoded(kind, map[string]any{"Incarnation": h.number(), "Node": name, "Addr": addr, "Port": at.Port(), "Meta": meta,
			"Vsn": []uint8{1, 5, 2, 0, 0, 0}})
	case 6:
		return append([]byte{8, byte(kindBroadcast)}, h.channelMessage()...)
	case 7:
		return append([]byte{8}, h.bytes(100)...)
	case 8: // a compound
		a, b := h.packet(), h.packet()
		c := binary.BigEndian.AppendUint16([]byte{7, 2}, uint16(len(a)))
		c = binary.BigEndian.AppendUint16(c, uint16(len(b)))
		return append(append(c, a...), b...)
	default:
		return h.bytes(200)
	}
}

// channelMessage returns the number of a channel, and a message for it: random bytes, or one that the channel can read.
func (h *hostile) channelMessage() []byte {
	_, at, _ := h.victim()
	id, _ := idOf(h.names[h.rng.IntN(len(h.names))])
	switch h.rng.IntN(4) {
	case 0:
		r := linkRecord{node: id, started: uint64(h.number()) << 29, number: uint64(h.number()) << 30}
		return r.append([]byte{byte(channelLinks)})
	case 1: // an announcement of an epoch
		a := append(append(append(id[:], h.bytes(8)...), make([]byte, 8)...)[:16], 0, 0, 0, byte(h.number()), 255, 255, 255, 255, 0)
		return append([]byte{byte(channelIdentity), 2, 0, byte(len(a))}, a...)
	case 2: // a list of revoked nodes that no CA of the network has signed
		list, err := identity.GenerateCA().SignRevocations(uint64(h.number()), time.Now(), []identity.Revocation{{ID: id, At: time.Now()}})
		if err != nil {
			h.t.Fatal(err)
		}
		b := list.Encode()
		return append(binary.BigEndian.AppendUint16([]byte{byte(channelIdentity), 1}, uint16(len(b))), b...)
	default:
		return append([]byte{byte(h.rng.IntN(6)), byte(at.Port())}, h.bytes(300)...)
	}
}

// exchange returns the message of an exchange of states.
func (h *hostile) exchange() []byte {
	buf := bytes.NewBuffer(nil)
	nodes := h.rng.IntN(5)
	for range nodes {
		name, at, meta := h.victim()
		b := h.encoded(0, map[string]any{"Name": name, "Addr": at.Addr().AsSlice(), "Port": at.Port(), "Meta": meta,
			"Incarnation": h.number(), "State": h.rng.IntN(4), "Vsn": []uint8{1, 5, 2, 0, 0, 0}})
		buf.Write(b[1:])
	}
	var state []byte
	for range h.rng.IntN(4) {
		m := h.channelMessage()
		state = append(append(state, m[0]), binary.BigEndian.AppendUint32(nil, uint32(len(m)-1))...)
		state = append(state, m[1:]...)
	}
	head := h.encoded(6, map[string]any{"Nodes": nodes, "UserStateLen": len(state), "Join": h.rng.IntN(2) == 0})
	return slices.Concat(head, buf.Bytes(), state)
}

// attack sends one packet to a node, in its own name or in that of another one, and now and then a message on a stream.
func (h *hostile) attack(n *node) {
	transport := h.Mesh.transport
	head := seal.Header{Sender: h.cfg.Identity.ID, Instance: h.instance, Counter: transport.counter.Add(1), Uptime: transport.uptime()}
	if h.rng.IntN(4) == 0 {
		head.Sender, _ = idOf(h.names[h.rng.IntN(len(h.names))])
		head.Instance = []uint64{n.instance, h.rng.Uint64()}[h.rng.IntN(2)]
		head.Counter, head.Uptime = []uint64{0, 1 << 40, math.MaxUint64}[h.rng.IntN(3)], time.Duration(h.number())*time.Second
	}
	kind := []seal.Type{seal.Packet, seal.Packet, seal.Packet, seal.Challenge, seal.Answer}[h.rng.IntN(5)]
	body := h.packet()
	if kind != seal.Packet {
		body = seal.Proof{Instance: n.instance, Nonce: seal.Nonce{byte(h.rng.Uint32())}}.Append(nil)
	}
	packet := h.keys.InUse().Sealer.Seal(kind, head, body)
	if _, err := h.transport.WriteTo(packet, n.transport.addr.String()); err != nil {
		h.t.Fatal(err)
	}
	if h.rng.IntN(10) > 0 {
		return
	}
	s, err := transport.openStream(n.transport.addr.String(), peer.ID{}, time.Second)
	if err != nil {
		return
	}
	defer func() { _ = s.Close() }()
	_ = s.SetDeadline(time.Now().Add(time.Second))
	msg := h.exchange()
	if h.rng.IntN(2) == 0 {
		id := n.cfg.Identity.ID
		msg = append([]byte{byte(kindUnicast)}, h.channelMessage()...)
		msg = slices.Concat(msg[:2], h.cfg.Identity.ID[:], id[:], msg[2:])
		_ = s.session.WriteMessage(s.Conn, seal.Unicast, msg)
	} else {
		_ = s.session.WriteMessage(s.Conn, seal.Memberlist, msg)
	}
	_, _, _ = s.session.ReadMessage(s.Conn, seal.MaxMessage, seal.NewBudget(2*seal.MaxMessage).Share(netip.Prefix{}))
}

// TestHostileMember: a member with hostile code, which speaks the whole protocol with values at the edges of what the fields hold, and
// in the names of all other members, ends no node and fills no table. When it stops, the others find each other again, and exchange
// messages.
func TestHostileMember(t *testing.T) {
	for name, signed := range map[string]bool{"secret": false, "identities": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var nw network
				a := newAuthority(t)
				startOne := func(name string, peers ...*node) *node {
					id := nodeIdentity(t)
					if signed {
						return startSigned(t, &nw, name, id, a.sign(id, nil), peers...)
					}
					return startWith(t, &nw, name, id, withKeys("a"), peers...)
				}
				x := startOne("x")
				rest := []*node{x, startOne("y", x), startOne("z", x)}
				evil := startOne("evil", x)
				awaitFullMesh(t, append(slices.Clone(rest), evil))
				h := newHostile(t, evil, rest...)
				for range 1500 {
					h.attack(rest[h.rng.IntN(len(rest))])
					time.Sleep(10 * time.Millisecond)
				}
				evil.stop()
				awaitWhole(t, rest)
				stopAll(append(rest, evil)...)
			})
		})
	}
}

// awaitWhole waits until nodes see each other again after an attack, and a message of each reaches all.
func awaitWhole(t *testing.T, nodes []*node) {
	t.Helper()
	time.Sleep(2 * time.Minute)
	awaitFullMesh(t, nodes)
	staysFullMesh(t, nodes, time.Minute)
	for _, n := range nodes {
		select {
		case <-n.done:
			t.Fatalf("%s has ended: %v", n.cfg.Name, n.err)
		default:
		}
		if err := n.Sender(ChannelIPAM).Broadcast([]byte("from " + n.cfg.Name)); err != nil {
			t.Error(err)
		}
		for _, other := range nodes {
			if other != n {
				eventually(t, "a broadcast arrives", func() bool { return other.knows("from " + n.cfg.Name) })
			}
		}
		left, replies := n.Mesh.transport.budget.Left(), n.Mesh.transport.replies.Left()
		if left != receiveBudget || replies != receiveBudget {
			t.Errorf("%s: %d and %d bytes of the budgets are left, want all", n.cfg.Name, left, replies)
		}
		if count := len(n.Members()); count > 150 {
			t.Errorf("%s has %d members", n.cfg.Name, count)
		}
	}
}
