package sieve

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// The fuzz targets give all that the sieve accepts to a memberlist. A panic in one of its goroutines ends the test process.

// subject is a memberlist that receives what the sieve accepts.
type subject struct {
	port  *port
	marks chan struct{} // receives when memberlist has handled the mark

}

var fuzzed = sync.OnceValues(newSubject)

var errFull = errors.New("test: no more nodes")

func newSubject() (*subject, error) {
	f := newFabric()
	s := &subject{port: f.port(netip.MustParseAddrPort("192.0.2.254:6783")), marks: make(chan struct{}, 1)}
	c := listConfig(s.port, 0xfe)
	c.Transport = mute{s.port}
	c.Delegate, c.Alive, c.Events, c.Ping = marker{&chatter{}, s.marks}, &doorman{}, &doorman{}, &doorman{}
	c.Merge = &doorman{}
	_, err := memberlist.Create(c)
	return s, err
}

// mute is a transport that sends nothing.
type mute struct{ *port }

func (mute) WriteTo([]byte, string) (time.Time, error) { return time.Now(), nil }

// mark is the user message that shows that memberlist has handled what was sent before it.
const mark = "fuzz target: mark"

// marker reports the mark.
type marker struct {
	*chatter
	marks chan struct{}
}

func (m marker) NotifyMsg(b []byte) {
	if string(b) == mark {
		m.marks <- struct{}{}
	}
}

// doorman decides about nodes as mesh's roster does: it bounds them, and reads what it gets.
type doorman struct{ known map[string]bool }

func (d *doorman) NotifyAlive(n *memberlist.Node) error {
	if d.known == nil {
		d.known = map[string]bool{}
	}
	if _, ok := parseName([]byte(n.Name)); !ok {
		return errName
	}
	if !d.known[n.Name] && len(d.known) >= 64 {
		return errFull
	}
	d.known[n.Name] = true
	return nil
}

func (*doorman) NotifyMerge(nodes []*memberlist.Node) error {
	for _, n := range nodes {
		_, _ = parseName([]byte(n.Name))
	}
	return nil
}
func (*doorman) NotifyJoin(*memberlist.Node)                                {}
func (*doorman) NotifyLeave(*memberlist.Node)                               {}
func (*doorman) NotifyUpdate(*memberlist.Node)                              {}
func (*doorman) AckPayload() []byte                                         { return make([]byte, 8) }
func (*doorman) NotifyPingComplete(*memberlist.Node, time.Duration, []byte) {}

// packet gives a packet to memberlist, and returns when it was handled.
func (s *subject) packet(b []byte) {
	from := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 6783}
	for _, p := range [][]byte{bytes.Clone(b), append([]byte{byte(kindUser)}, mark...)} {
		s.port.packets <- &memberlist.Packet{Buf: p, From: from, Timestamp: time.Now()}
	}
	<-s.marks
}

// stream gives a stream to memberlist, and returns when it was handled.
func (s *subject) stream(b []byte) {
	near, far := net.Pipe()
	s.port.streams <- far
	go func() { _, _ = near.Write(b) }()
	_, _ = io.Copy(io.Discard, near) // until memberlist closes its end
	_ = near.Close()
}

func FuzzPacket(f *testing.F) {
	aliveMessage := encode(f, kindAlive, validAlive())
	pkcs7 := make([]byte, 16) // decrypted under version 0, it made memberlist slice below 0
	pkcs7[15] = 255
	for _, b := range [][]byte{
		pkcs7, {244, 4, 'w', 'e', 'f', 't'}, {byte(kindEncrypted)}, aliveMessage, summed(aliveMessage),
		encode(f, kindPing, validPing()),
		encode(f, kindIndirectPing, indirectPing{200, addrB, 6783, nameB, true, addrA, 6783, nameA}),
		encode(f, kindAck, ack{70000, []byte("12345678")}), encode(f, kindNack, nack{1}),
		encode(f, kindSuspect, accusation{7, nameA, nameB}), encode(f, kindDead, accusation{7, nameA, nameA}),
		makeCompound(aliveMessage, []byte{byte(kindUser), 1}, aliveMessage),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if Packet(b, maxUint32) != nil {
			return
		}
		for _, m := range messages(b) {
			checkCanonical(t, m)
		}
		s, err := fuzzed()
		if err != nil {
			t.Fatal(err)
		}
		s.packet(b)
	})
}

// checkCanonical fails when memberlist's decoder does not read an accepted message whole, or its encoder makes another one
// of it.
func checkCanonical(t *testing.T, m []byte) {
	t.Helper()
	v := map[kind]any{
		kindPing: &ping{}, kindIndirectPing: &indirectPing{}, kindAck: &ack{}, kindNack: &nack{}, kindAlive: &alive{},
		kindSuspect: &accusation{}, kindDead: &accusation{}, kindError: &errorText{},
	}[kind(m[0])]
	if v == nil {
		return
	}
	if rest, again, ok := decodes(t, m[1:], v); !ok || len(rest) > 0 || !bytes.Equal(again, m[1:]) {
		t.Errorf("%q is accepted; memberlist reads it: %v, leaves %q, writes %q", m, ok, rest, again)
	}
}

func FuzzStream(f *testing.F) {
	for _, b := range [][]byte{
		{byte(kindEncrypted), 0, 0, 0, 29}, // opened, it was empty: memberlist read its first byte
		encode(f, kindPushPull, header{2, 4, true}, validState(), with(validState(), func(s *nodeState) { s.State = 0 }), []byte("user")),
		encode(f, kindPing, validPing()), encode(f, kindUser, userHeader{3}, []byte("abc")),
		encode(f, kindAck, ack{1, nil}), encode(f, kindError, errorText{"failed to receive"}),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if Reply(b, maxUint32) == nil {
			checkCanonical(t, b)
		}
		if Stream(b, maxUint32) != nil {
			return
		}
		if k := kind(b[0]); k == kindPushPull {
			checkStates(t, b[1:])
		} else {
			checkCanonical(t, b)
		}
		s, err := fuzzed()
		if err != nil {
			t.Fatal(err)
		}
		s.stream(b)
	})
}

// checkStates is checkCanonical for an exchange of states.
func checkStates(t *testing.T, b []byte) {
	t.Helper()
	var h header
	rest, all, ok := decodes(t, b, &h)
	for range h.Nodes {
		if ok {
			var again []byte
			rest, again, ok = decodes(t, rest, &nodeState{})
			all = append(all, again...)
		}
	}
	if !ok || len(rest) != h.UserStateLen || !bytes.Equal(append(all, rest...), b) {
		t.Errorf("%q is accepted; memberlist reads it: %v, leaves %q, writes %q", b, ok, rest, all)
	}
}

// FuzzValues varies the values of messages, most of which the sieve accepts, as bytes at random rarely are.
func FuzzValues(f *testing.F) {
	v4, metadata, none := []byte{192, 0, 2, 1}, make([]byte, 59), []byte{}
	f.Add(uint8(kindAlive), uint32(1), uint64(1), uint64(2), v4, uint16(6783), metadata, vsn, uint8(0), true)
	f.Add(uint8(kindPushPull), uint32(1), uint64(1), uint64(2), v4, uint16(6783), metadata, vsn, uint8(2), true)
	f.Add(uint8(kindDead), uint32(1<<32-1), uint64(0xfe), uint64(0xfe), []byte{192, 0, 2, 254}, uint16(6783), none, none, uint8(3), false)
	f.Add(uint8(kindIndirectPing), uint32(1), uint64(1), uint64(2), []byte{15: 1}, uint16(6783), none, none, uint8(0), true)
	f.Fuzz(func(t *testing.T, k uint8, number uint32, id, other uint64, addr []byte, port uint16, meta, vsn []byte, state uint8, flag bool) {
		at, _ := netip.AddrFromSlice(addr)
		name, from := nameOf(id, at, port), nameOf(other, at, port)
		var b []byte
		switch kind(k) {
		case kindPing:
			b = encode(t, kindPing, ping{number, name, addr, port, from})
		case kindIndirectPing:
			b = encode(t, kindIndirectPing, indirectPing{number, addr, port, name, flag, addr, port, from})
		case kindAck:
			b = encode(t, kindAck, ack{number, meta})
		case kindSuspect, kindDead:
			b = encode(t, kind(k), accusation{number, name, from})
		case kindAlive:
			b = encode(t, kindAlive, alive{number, name, addr, port, meta, vsn})
		case kindPushPull:
			node := nodeState{name, addr, port, meta, number, int(state), vsn}
			b = encode(t, kindPushPull, header{2, len(meta), flag}, node, with(node, func(n *nodeState) { n.Name = from }), meta)
		default:
			b = encode(t, kindNack, nack{number})
		}
		s, err := fuzzed()
		if err != nil {
			t.Fatal(err)
		}
		if Packet(b, maxUint32) == nil {
			s.packet(summed(makeCompound(b, b)))
		} else if Stream(b, maxUint32) == nil {
			s.stream(b)
		}
	})
}

func nameOf(id uint64, at netip.Addr, port uint16) string {
	return fmt.Sprintf("%016x@%s", id, netip.AddrPortFrom(at.Unmap(), port))
}
