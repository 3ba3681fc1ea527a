package underlay

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Offsets of fields in the headers of IPv4 and IPv6 in bytes (RFC 791, RFC 8200), and of the source port in that of UDP (RFC 768).
const (
	ipv4Source = 12
	ipv4Len    = 20
	ipv6Next   = 6
	ipv6Source = 8
	ipv6Len    = 40
	udpSource  = 0
)

// network is the offset at which a classic BPF program finds the IP header: SKF_NET_OFF of linux/filter.h.
const network uint32 = 0xfff00000

// steering returns the classic BPF program (Documentation/networking/filter.rst) that chooses the socket of a datagram among n of one
// port: the last 32 bits of the source address plus the source port, modulo n. For a datagram with IP options or extension headers it
// returns n, and the kernel uses its hash. A datagram that arrived in fragments has been reassembled before.
func steering(n int) []unix.SockFilter {
	const (
		load   = unix.BPF_LD | unix.BPF_ABS
		equals = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		result = 15 // index of the instruction behind both branches
		hash   = 17
	)
	// sum is the source address's last word plus the source port.
	sum := func(address, port uint32) []unix.SockFilter {
		return []unix.SockFilter{
			{Code: load | unix.BPF_W, K: network + address},
			{Code: unix.BPF_MISC | unix.BPF_TAX},
			{Code: load | unix.BPF_H, K: network + port},
			{Code: unix.BPF_ALU | unix.BPF_ADD | unix.BPF_X},
		}
	}
	program := []unix.SockFilter{
		{Code: load | unix.BPF_B, K: network},
		{Code: equals, K: 0x45, Jf: 5}, // version 4, five words of header; else to the other branch
	}
	program = append(program, sum(ipv4Source, ipv4Len+udpSource)...)
	program = append(program, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: result - 7})
	program = append(program,
		unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xf0}, // 7
		unix.SockFilter{Code: equals, K: 0x60, Jf: hash - 9},                     // version 6
		unix.SockFilter{Code: load | unix.BPF_B, K: network + ipv6Next},          // 9
		unix.SockFilter{Code: equals, K: unix.IPPROTO_UDP, Jf: hash - 11},
	)
	program = append(program, sum(ipv6Source+12, ipv6Len+udpSource)...) // 11
	return append(program,
		unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(n)}, // result
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_A},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(n)}, // hash
	)
}

// steer attaches the program to the group of n sockets that u belongs to (SO_ATTACH_REUSEPORT_CBPF, socket(7)).
func (u *UDP) steer(n int) error {
	program := steering(n)
	var err error
	return errors.Join(u.file.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	}), err)
}
