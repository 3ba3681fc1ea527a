// Package underlay carries datagrams between nodes in batches.
//
// The seam is Conn: Listen returns a UDP socket, and simnet a socket in memory with latency, loss and NATs. One
// conformance suite (underlaytest.TestConn) holds for both.
//
// The UDP socket is fast because up to 64 datagrams cross the kernel's network stack at once: datagrams of equal size
// to one peer are sent as one message (UDP_SEGMENT), datagrams from one peer are received as one message (UDP_GRO), and
// one system call handles many messages (sendmmsg(2), recvmmsg(2)). If the kernel does not support one of them, the
// socket works without it.
package underlay

import (
	"net/netip"

	"weft/internal/poll"
)

// MaxDatagram is the largest UDP payload over IPv4 in bytes: 65,535 minus the headers of IPv4 and UDP. Over IPv6 it is
// MaxDatagram6, as the length field of IPv6 does not include its header. A buffer of 64 KiB holds either, and every
// element that a socket merges.
const (
	MaxDatagram  = 65535 - 20 - 8
	MaxDatagram6 = 65535 - 8
)

// Datagram is one datagram of the underlay, or several of one size in one buffer.
type Datagram struct {
	// Addr is the destination or the source of the datagram. IPv4 addresses are never IPv6-mapped, and no address has a
	// zone: a link-local address identifies a host only to its neighbors.
	Addr netip.AddrPort
	// Buf is the payload. ReadBatch fills it from the start and sets its length.
	Buf []byte
	// More are further pieces of the payload, in order behind Buf, so that the sender need not copy. WriteBatch uses
	// it; ReadBatch does not change it.
	More [][]byte
	// SegmentSize is 0 for a single datagram. Otherwise the payload consists of any number of datagrams of this many
	// bytes; the last one may be shorter, and pieces may end anywhere within them. ReadBatch sets it only if Buf holds
	// more than one datagram.
	SegmentSize int
	// TOS is the type of service of IPv4, or the traffic class of IPv6, of the IP header around each datagram: DSCP in
	// the upper six bits, ECN in the lower two (RFC 2474, RFC 3168). WriteBatch sends with it. ReadBatch sets it; it is
	// the same for all datagrams of an element.
	TOS uint8
	// Err is set by WriteBatch: nil if the whole payload was sent, otherwise the error of the payload or of a part of
	// it. It is a system error, which needs no allocation: syscall.EMSGSIZE, larger than the MTU; ENOBUFS, the queue of
	// the interface is full; EPERM, a firewall of this host.
	Err error
}

// Conn is a bound socket. One goroutine may read while others write; two must not read at once. No call allocates,
// except for the first.
type Conn interface {
	// ReadBatch fills batch with the datagrams that have arrived, and returns the number of elements set, 0 if there is none; less than
	// len(batch) means that there was no more. Buf of each element is the buffer, up to its capacity; ReadBatch sets its
	// length. A datagram longer than its buffer is dropped; the elements may then have exchanged their buffers. A socket that merges datagrams
	// drops all datagrams of such a message, so its buffers should have 64 KiB. Errors that the network reports (ICMP)
	// are not returned. After Close the error is net.ErrClosed.
	ReadBatch(batch []Datagram) (n int, err error)

	// Source is ready when there may be a datagram to read, and after Close.
	Source() poll.Source

	// WriteBatch sends batch in order and returns the number of elements sent; it does not keep the buffers. It skips
	// an element that cannot be sent (no route, too large, refused) and sets its Err; the returned error is that of the
	// first such element. Some segments of an element may be sent although others cannot. Consecutive elements or
	// segments with the same Addr, size and TOS cost least. Several goroutines may call it; they wait for each other. After
	// Close the error is net.ErrClosed.
	WriteBatch(batch []Datagram) (n int, err error)

	// LocalAddr returns the address that the socket is bound to.
	LocalAddr() netip.AddrPort

	// Close closes the socket. It may be called from any goroutine, and more than once.
	Close() error
}
