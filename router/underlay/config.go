package underlay

import (
	"errors"
	"net/netip"
)

// Default sizes of a socket's kernel buffers in bytes.
//
// DefaultReceiveBuffer must hold the datagrams that arrive while the reader waits for a busy CPU, which takes some time
// slices of 3 ms. The kernel doubles the size and charges its own bookkeeping to it. By measurement it holds 258 merged
// messages of 64 KiB, 7,281 single datagrams of 1,458 bytes (13 and 8 ms of traffic at 10 Gbit/s), or 20,000 small
// datagrams.
//
// DefaultSendBuffer bounds the datagrams that wait in the queues of this host: a few batches of superframes. A larger
// buffer would not be faster, as a writer that finds it full only waits, but would delay later datagrams.
const (
	DefaultReceiveBuffer = 8 << 20
	DefaultSendBuffer    = 4 << 20
)

// Errors that Listen wraps. The errors that wrap them name the port or address and a remedy.
var (
	// ErrPortInUse: another socket of the host uses the port.
	ErrPortInUse = errors.New("the port is in use")
	// ErrSource: Config.Source is not an address of this host. Behind a NAT, the address that others see is not one.
	ErrSource = errors.New("not an address of this host")
)

// Config describes a socket; zero fields stand for their defaults.
type Config struct {
	// Port is the UDP port; 0 stands for any free port.
	Port uint16
	// Source is the source address of datagrams of its family, for a host with several addresses: peers know the node
	// by it. It must be an address of this host. The socket receives on all addresses nonetheless. Not valid: the
	// routes choose.
	Source netip.Addr
	// ReceiveBuffer and SendBuffer are the sizes of the kernel's buffers in bytes; 0 stands for DefaultReceiveBuffer
	// and DefaultSendBuffer. Without CAP_NET_ADMIN the kernel limits them to net.core.rmem_max and wmem_max;
	// UDP.Buffers returns the real sizes.
	ReceiveBuffer, SendBuffer int
	// DontFragment sets the don't-fragment bit in every datagram, for senders that discover the path MTU themselves
	// (RFC 8899). A datagram larger than the MTU of the interface fails with EMSGSIZE. The kernel ignores ICMP messages
	// about the path behind it (IP_PMTUDISC_PROBE); Reports receives them. Without DontFragment, datagrams too large
	// for a link are fragmented on the path: slow, but they arrive.
	DontFragment bool
	// NoGSO and NoGRO disable the offloads, for kernels with bugs that cannot be detected. Known bugs:
	//
	//   - Linux 6.6.44: virtio_net refuses a message with a short last segment (EINVAL; detected without NoGSO).
	//   - 7.0-rc1 to 7.1, and guests of 6.17: GSO corrupts headers.
	//   - before 6.8.5: segmentation of UDP is wrong if the underlay itself is a VXLAN.
	//   - older kernels: no GSO through devices without checksum offload (EIO; detected without NoGSO).
	NoGSO, NoGRO bool
	// Reports receives the errors that the network reports about sent datagrams; it may be nil. Among the sockets of
	// ListenQueues, the socket that receives a report may be another one than the sender of the datagram.
	Reports ReportHandler
}
