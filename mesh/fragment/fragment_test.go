package fragment

import (
	"encoding/binary"
	"testing"

	"weft/internal/peer"
)

// dropAll is a Link that loses everything.
type dropAll struct{}

func (dropAll) Send(peer.ID, []byte) error { return nil }

// FuzzReceive: a Fragmenter handles or refuses every fragment and acknowledgement, and keeps a bounded amount of them.
func FuzzReceive(f *testing.F) {
	f.Add(append(binary.BigEndian.AppendUint64(nil, 7), 0, 0, 0, 1, 2, 1))
	f.Add(append(binary.BigEndian.AppendUint64(nil, 7), 0, 1, 0, 2, 9))
	f.Add(append(binary.BigEndian.AppendUint64(nil, 7), 255, 255, 255, 255))
	f.Add(append(binary.BigEndian.AppendUint64(nil, 7), 0, 0))
	f.Add([]byte{})
	x := New(dropAll{})
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = x.ReceiveAck(peer.ID{1}, b)
		if msg, err := x.Receive(peer.ID{1}, append([]byte(nil), b...)); err != nil && msg != nil {
			t.Error("a message and an error")
		}
		kept := 0
		for _, r := range x.reassemblies {
			for _, part := range r.fragments {
				kept += len(part)
			}
		}
		if n := len(x.reassemblies); n > maxReassemblies || len(x.received) > maxReceived || kept > maxReassemblies*maxFragments*fragmentSize {
			t.Errorf("%d reassemblies with %d bytes, %d IDs of received messages", n, kept, len(x.received))
		}
	})
}

// TestOnePeerCannotFillTheTable: fragments of messages that a peer never completes leave room for those of others.
func TestOnePeerCannotFillTheTable(t *testing.T) {
	x := New(dropAll{})
	receive := func(from byte, id uint64, index uint16) []byte {
		b := binary.BigEndian.AppendUint64(nil, id)
		b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, index), 2)
		msg, err := x.Receive(peer.ID{from}, append(b, 'x'))
		if err != nil {
			t.Fatal(err)
		}
		return msg
	}
	for evil := range byte(20) { // nodes that one holder of the secret has made up
		for id := range uint64(100) {
			receive(100+evil, id, 0)
		}
	}
	if len(x.reassemblies) > maxReassemblies {
		t.Errorf("%d messages", len(x.reassemblies))
	}
	for id := range uint64(2) {
		receive(1, id, 0)
	}
	for id := range uint64(2) {
		if string(receive(1, id, 1)) != "xx" {
			t.Errorf("message %d of an honest peer is not received", id)
		}
	}
}
