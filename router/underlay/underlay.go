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
	// Addr is where the datagram goes to or came from. IPv4 addresses are never in their IPv6-mapped form, and no
	// address has a zone: link-local ones do not name a host to more than its neighbours.
	Addr netip.AddrPort
	// Buf is the payload. ReadBatch fills it from the start and cuts it to what arrived.
	Buf []byte
	// More are further pieces of the payload, in order behind Buf, so that the sender need not copy what it cuts. Only
	// of datagrams that are sent: ReadBatch leaves it alone.
	More [][]byte
	// SegmentSize is 0 for a single datagram; otherwise the payload is datagrams of this many bytes, the last may be
	// shorter. There may be any number of them, and the pieces may end anywhere within them.
	SegmentSize int
	// Err is set by WriteBatch: nil where all of Buf left, else why it, or a part of it, did not. The errors are those of
	// the system (syscall.EMSGSIZE: larger than the path takes), so that setting them allocates nothing.
	Err error
}

// Conn is a bound socket. One goroutine may read while others write; two may not read at once. No call allocates once
// the first has been made.
type Conn interface {
	// ReadBatch waits for a datagram, then fills batch with what is there and returns how many elements it set. Buf of
	// each element is the buffer up to its capacity; it is cut to the length read. A datagram longer than its buffer is
	// dropped, and the elements may then have exchanged their buffers. Errors that the network reports (ICMP) are not
	// returned. After Close: net.ErrClosed.
	ReadBatch(batch []Datagram) (n int, err error)

	// WriteBatch sends batch in order and returns how many elements left; it does not keep the buffers. An element that
	// cannot be sent (no route, too large, refused) is skipped and has its Err set; the error returned is that of the
	// first such. Several goroutines may call it, and wait for one another. After Close: net.ErrClosed.
	WriteBatch(batch []Datagram) (n int, err error)

	// LocalAddr is the address that the socket is bound to.
	LocalAddr() netip.AddrPort

	// Close ends every ReadBatch. It may be called from any goroutine, and again.
	Close() error
}
