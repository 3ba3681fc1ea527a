// Package underlay carries datagrams between nodes in batches.
//
// The seam is Conn: Listen returns a UDP socket, simnet one in memory with latency, loss and NATs; one conformance
// suite (underlaytest.TestConn) holds for both.
//
// What makes the socket fast is that the kernel's stack is crossed once for up to 64 datagrams: equal sizes to one peer
// go down as one message (UDP_SEGMENT), those that come from one peer come up as one (UDP_GRO), and one system call
// takes many messages (sendmmsg(2), recvmmsg(2)). Each of the three falls back to the next without the caller's help.
package underlay

import "net/netip"

// MaxDatagram is the largest UDP payload over IPv4 in bytes: 65,535 less the headers of IPv4 and UDP. Over IPv6, whose
// length field does not count its own header, it is MaxDatagram6. A buffer of 64 KiB holds either, and all that a
// socket merges into one element.
const (
	MaxDatagram  = 65535 - 20 - 8
	MaxDatagram6 = 65535 - 8
)

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
	// shorter. There may be any number of them, and the pieces may end anywhere within them. ReadBatch sets it only
	// where Buf holds more than one datagram.
	SegmentSize int
	// Err is set by WriteBatch: nil where the whole payload left, else why it, or a part of it, did not. The errors are
	// those of the system, so that setting them allocates nothing: syscall.EMSGSIZE, larger than the path takes;
	// ENOBUFS, the queue of the interface is full; EPERM, a firewall of this host.
	Err error
}

// Conn is a bound socket. One goroutine may read while others write; two may not read at once. No call allocates once
// the first has been made.
type Conn interface {
	// ReadBatch waits for a datagram, then fills batch with what is there and returns how many elements it set. Buf of
	// each element is the buffer up to its capacity; it is cut to the length read. A datagram longer than its buffer is
	// dropped, and the elements may then have exchanged their buffers. A socket that merges datagrams drops those that
	// it has merged together, so its buffers should have 64 KiB. Errors that the network reports (ICMP) are not
	// returned. After Close: net.ErrClosed.
	ReadBatch(batch []Datagram) (n int, err error)

	// WriteBatch sends batch in order and returns how many elements left; it does not keep the buffers. An element that
	// cannot be sent (no route, too large, refused) is skipped and has its Err set; the error returned is that of the
	// first such. Of an element that has segments some may leave although others cannot. Neighbours with the same Addr
	// and the same size cost least, whether they are elements or segments. Several goroutines may call it, and wait for
	// one another. After Close: net.ErrClosed.
	WriteBatch(batch []Datagram) (n int, err error)

	// LocalAddr is the address that the socket is bound to.
	LocalAddr() netip.AddrPort

	// Close ends every ReadBatch. It may be called from any goroutine, and again.
	Close() error
}
