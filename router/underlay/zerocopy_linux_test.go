package underlay_test

import (
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"weft/tap/taptest"
)

// BenchmarkZerocopy measures what MSG_ZEROCOPY could save at most: the cost of sendmsg for the sealed datagrams of one
// superframe, with a copy and without one. A rule drops the datagrams before a device sees them, so that no device
// copies them after all, as a veth does. ADR 0052 interprets the result.
func BenchmarkZerocopy(b *testing.B) {
	const size, count = 1424, 46
	taptest.InNamespace(b)
	for _, c := range []string{
		"ip link set lo up",
		"nft add table ip zerocopy",
		"nft add chain ip zerocopy output { type filter hook output priority 0 ; }",
		"nft add rule ip zerocopy output udp dport 9 drop",
	} {
		if out, err := exec.CommandContext(b.Context(), strings.Fields(c)[0], strings.Fields(c)[1:]...).CombinedOutput(); err != nil {
			b.Fatalf("%s: %v: %s", c, err, out)
		}
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	for option, value := range map[[2]int]int{
		{unix.SOL_SOCKET, unix.SO_ZEROCOPY}: 1,
		{unix.SOL_UDP, unix.UDP_SEGMENT}:    size,
		{unix.SOL_SOCKET, unix.SO_SNDBUF}:   8 << 20,
	} {
		if err := unix.SetsockoptInt(fd, option[0], option[1], value); err != nil {
			b.Fatal(err)
		}
	}
	to := &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}
	arena, err := unix.Mmap(-1, 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = unix.Munmap(arena) }()
	whole := [][]byte{arena[:size*count]}
	var gathered [][]byte // as plain datagrams are: a header, and a piece of the superframe
	headers := make([]byte, count*24)
	for i := range count {
		gathered = append(gathered, headers[i*24:(i+1)*24], arena[i*(size-24):(i+1)*(size-24)])
	}
	for _, way := range []struct {
		name    string
		flags   int
		payload [][]byte
	}{
		{"sealed/copy", 0, whole},
		{"sealed/zerocopy", unix.MSG_ZEROCOPY, whole},
		{"plain/copy", 0, gathered},
		{"plain/zerocopy", unix.MSG_ZEROCOPY, gathered},
	} {
		b.Run(way.name, func(b *testing.B) {
			b.SetBytes(size * count)
			for i := 0; b.Loop(); i++ {
				_, err := unix.SendmsgBuffers(fd, way.payload, nil, to, unix.MSG_DONTWAIT|way.flags)
				if err != nil && !errors.Is(err, syscall.EPERM) { // EPERM: dropped by the rule
					b.Skipf("the kernel refuses the message: %v", err)
				}
				if way.flags != 0 && i%8 == 7 { // a batch of the datapath
					notified(b, fd)
				}
			}
		})
	}
}

// notified reads the notifications that the kernel no longer needs the payload of earlier messages.
func notified(b *testing.B, fd int) {
	var control [128]byte
	for {
		_, _, _, _, err := unix.Recvmsg(fd, nil, control[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if errors.Is(err, syscall.EAGAIN) {
			return
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
