package underlay

import (
	"errors"
	"net/netip"
)

// Sizes in bytes asked of the kernel for a socket's buffers.
//
// DefaultReceiveBuffer is what 10 Gbit/s bring in 6 ms, which is how long a reader may be kept off a busy CPU; half as much
// was lost under four streams. The kernel counts a merged message of 64 KiB little more than its length, but each single
// datagram as 2 KiB and more, so that it holds about 120 of the former and 4,000 of the latter.
//
// DefaultSendBuffer bounds what waits in this host's queues and is sent by nobody yet: a few batches of superframes. More
// would not be faster, since a writer that finds it full only waits, and would delay what comes behind.
const (
	DefaultReceiveBuffer = 8 << 20
	DefaultSendBuffer    = 4 << 20
)

// Errors that Listen wraps, in sentences that name port or address and the mend.
var (
	// ErrPortInUse: another socket of the host has the port.
	ErrPortInUse = errors.New("the port is in use")
	// ErrSource: Config.Source is no address of this host. Behind a NAT the address that others see is none.
	ErrSource = errors.New("not an address of this host")
)

// Config describes a socket; what is zero takes its default.
type Config struct {
	// Port is the UDP port; 0 for any free one.
	Port uint16
	// Source, where valid, is the address that datagrams of its family come from, on a host that has several: peers know
	// a node by it. It must be an address of this host. The socket receives on all addresses nonetheless.
	Source netip.Addr
	// ReceiveBuffer and SendBuffer are the sizes in bytes of the kernel's buffers, DefaultReceiveBuffer and
	// DefaultSendBuffer where 0. A process without CAP_NET_ADMIN gets no more than net.core.rmem_max and wmem_max allow:
	// UDP.Buffers tells what it got.
	ReceiveBuffer, SendBuffer int
	// DontFragment has every datagram carry the don't-fragment bit, for senders that find the path's MTU themselves
	// (RFC 8899). One that is larger than the MTU of the interface fails with EMSGSIZE; what ICMP says of the path behind
	// it is left to OnError, and never believed by the kernel (IP_PMTUDISC_PROBE). Where false, what is too large for some
	// link is fragmented on the way: slow, but it arrives.
	DontFragment bool
	// NoGSO and NoGRO turn the offloads off, for kernels that get them wrong: GSO in Linux 6.6.44 (virtio_net: EINVAL on a
	// short last segment) and in 6.17 to 7.1 (mangled headers), and with both, tunnels of before 6.8.5 as the underlay. A
	// kernel or device that refuses is found out without: UDP.Features tells.
	NoGSO, NoGRO bool
	// OnError, where set, is told what the network reports of datagrams sent. The reading goroutine calls it, at the
	// rate of the network: it must not block, and should do no more than count and set. Among ListenQueues the socket
	// whose reader is told need not be the one that sent.
	OnError func(Report)
}
