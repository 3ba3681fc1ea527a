package underlay

import (
	"errors"
	"net/netip"
)

// Sizes in bytes asked of the kernel for a socket's buffers.
//
// DefaultReceiveBuffer must hold what comes while the reader is kept off a busy CPU, which is for some slices of 3 ms. The
// kernel doubles it and charges its own bookkeeping to it: measured, it holds 258 merged messages of 64 KiB or 7,281 single
// datagrams of 1,458 bytes, which 10 Gbit/s bring in 13 and 8 ms, or 20,000 small ones.
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
	// NoGSO and NoGRO turn the offloads off, for kernels that get them wrong without saying so. Known are:
	//
	//   - Linux 6.6.44: virtio_net refuses a message with a short last segment (EINVAL, found out without NoGSO).
	//   - 7.0-rc1 to 7.1, and guests of 6.17: GSO mangles headers.
	//   - before 6.8.5: segmentation of UDP goes wrong where the underlay itself is a VXLAN.
	//   - older kernels: no GSO through devices that compute no checksums (EIO, found out without NoGSO).
	NoGSO, NoGRO bool
	// OnError, where set, is told what the network reports of datagrams sent. The reading goroutine calls it, at the
	// rate of the network: it must not block, and should do no more than count and set. Among ListenQueues the socket
	// whose reader is told need not be the one that sent.
	OnError func(Report)
}
