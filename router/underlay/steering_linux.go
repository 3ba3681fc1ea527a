package underlay

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Offsets of fields in the headers of IPv4 and IPv6 in bytes (RFC 791, RFC 8200), and of the source port in that of UDP (RFC 768).
const (
	ipv4Len   = 20
	ipv6Next  = 6
	ipv6Len   = 40
	udpSource = 0
)

// network is the offset at which a classic BPF program finds the IP header: SKF_NET_OFF of linux/filter.h.
const network uint32 = 0xfff00000

// steering returns the classic BPF program (Documentation/networking/filter.rst) that chooses the socket of a datagram among n of one
// port, data. From an entropy port it is the number of that port modulo n, as all nodes have the same data port. For a datagram from a data
// port, or with IP options or extension headers, the program returns n, and the kernel uses its hash. A datagram that arrived in fragments
// has been reassembled before.
func steering(data uint16, n int) []unix.SockFilter {
	const (
		load   = unix.BPF_LD | unix.BPF_ABS
		equals = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		both   = 9 // index of the first instruction for both families
		hash   = 13
	)
	return []unix.SockFilter{
		{Code: load | unix.BPF_B, K: network},
		{Code: equals, K: 0x45, Jf: 2}, // version 4, five words of header
		{Code: load | unix.BPF_H, K: network + ipv4Len + udpSource},
		{Code: unix.BPF_JMP | unix.BPF_JA, K: both - 4},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xf0}, // 4
		{Code: equals, K: 0x60, Jf: hash - 6},                     // version 6
		{Code: load | unix.BPF_B, K: network + ipv6Next},
		{Code: equals, K: unix.IPPROTO_UDP, Jf: hash - 8},
		{Code: load | unix.BPF_H, K: network + ipv6Len + udpSource},
		{Code: equals, K: uint32(data), Jt: hash - 10},                                              // both
		{Code: unix.BPF_ALU | unix.BPF_ADD | unix.BPF_K, K: entropyStep - uint32(data)%entropyStep}, // data port and number 0 become 0
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(n)},
		{Code: unix.BPF_RET | unix.BPF_A},
		{Code: unix.BPF_RET | unix.BPF_K, K: uint32(n)}, // hash
	}
}

// steer attaches the program to the group of n sockets that u belongs to (SO_ATTACH_REUSEPORT_CBPF, socket(7)).
func (u *UDP) steer(n int) error {
	program := steering(u.local.Port(), n)
	var err error
	return errors.Join(u.file.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	}), err)
}
