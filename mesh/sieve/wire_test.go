package sieve

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/hashicorp/go-msgpack/v2/codec"
)

// The messages of memberlist v0.7.0 (net.go), which it does not export.
type (
	ping struct {
		SeqNo      uint32
		Node       string
		SourceAddr []byte `codec:",omitempty"`
		SourcePort uint16 `codec:",omitempty"`
		SourceNode string `codec:",omitempty"`
	}
	indirectPing struct {
		SeqNo      uint32
		Target     []byte
		Port       uint16
		Node       string
		Nack       bool
		SourceAddr []byte `codec:",omitempty"`
		SourcePort uint16 `codec:",omitempty"`
		SourceNode string `codec:",omitempty"`
	}
	ack struct {
		SeqNo   uint32
		Payload []byte
	}
	nack       struct{ SeqNo uint32 }
	errorText  struct{ Error string }
	accusation struct {
		Incarnation uint32
		Node        string
		From        string
	}
	alive struct {
		Incarnation uint32
		Node        string
		Addr        []byte
		Port        uint16
		Meta        []byte
		Vsn         []uint8
	}
	header struct {
		Nodes        int
		UserStateLen int
		Join         bool
	}
	userHeader struct{ UserMsgLen int }
	nodeState  struct {
		Name        string
		Addr        []byte
		Port        uint16
		Meta        []byte
		Incarnation uint32
		State       int
		Vsn         []uint8
	}
	compressed struct {
		Algo uint8
		Buf  []byte
	}
)

// encode returns a message as memberlist writes it.
func encode(t testing.TB, k kind, parts ...any) []byte {
	t.Helper()
	buf := bytes.NewBuffer([]byte{byte(k)})
	enc := codec.NewEncoder(buf, &codec.MsgpackHandle{})
	for _, p := range parts {
		if raw, ok := p.([]byte); ok {
			buf.Write(raw)
		} else if err := enc.Encode(p); err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()
}

// makeCompound returns a compound of messages.
func makeCompound(parts ...[]byte) []byte {
	b := []byte{byte(kindCompound), byte(len(parts))}
	for _, p := range parts {
		b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
	}
	return append(b, bytes.Join(parts, nil)...)
}

// summed returns a message behind its checksum.
func summed(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{byte(kindChecksum)}, crc32.ChecksumIEEE(b)), b...)
}

// decodes reports whether memberlist's decoder reads v from the front of b, and returns the rest and what its encoder makes of
// v.
func decodes(t testing.TB, b []byte, v any) (rest, again []byte, ok bool) {
	t.Helper()
	in := bytes.NewReader(b)
	if err := codec.NewDecoder(in, &codec.MsgpackHandle{}).Decode(v); err != nil {
		return nil, nil, false
	}
	return b[len(b)-in.Len():], encode(t, 0, v)[1:], true
}
