// Package underlay carries datagrams between nodes in batches.
//
// The seam is Conn: Listen returns a UDP socket, simnet one in memory with latency, loss and NATs; one conformance
// suite (underlaytest.TestConn) holds for both.
package underlay

import "net/netip"

// MaxDatagram is the largest UDP payload over IPv4 in bytes, and the size of a buffer that can hold any datagram.
const MaxDatagram = 65507

// Datagram is one outer datagram, or many of one size in one buffer.
type Datagram struct {
	// Addr is where the datagram goes to or came from. IPv4 addresses are never in their IPv6-mapped form.
	Addr netip.AddrPort
	// Buf is the payload. ReadBatch fills it from the start and cuts it to what arrived.
	Buf []byte
	// SegmentSize is 0 for a single datagram; otherwise Buf holds datagrams of this many bytes, the last may be shorter.
	SegmentSize int
}

// Conn is a bound socket. One goroutine may read while others write; two may not read at once.
type Conn interface {
	// ReadBatch waits for a datagram, then fills batch with what is there and returns how many elements it set. Buf
	// of each element must have its capacity as the buffer's size: it is cut to the length read, and a datagram longer
	// than it is dropped. Errors that the network reports (ICMP) are not returned. After Close: net.ErrClosed.
	ReadBatch(batch []Datagram) (n int, err error)

	// WriteBatch sends batch in order and returns how many elements left; it does not keep the buffers. An element that
	// cannot be sent (no route, too large, refused) is skipped, and the error is that of the first such. After Close:
	// net.ErrClosed.
	WriteBatch(batch []Datagram) (n int, err error)

	// LocalAddr is the address that the socket is bound to.
	LocalAddr() netip.AddrPort

	// Close ends every ReadBatch. It may be called from any goroutine, and again.
	Close() error
}
