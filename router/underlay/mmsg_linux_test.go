package underlay

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSockaddr: both kinds of socket, including the one of a host without IPv6, which few test machines are.
func TestSockaddr(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:6784"), netip.MustParseAddrPort("[2001:db8::1]:6784")
	for _, tt := range []struct {
		addr netip.AddrPort
		ipv6 bool
		want unix.Errno
	}{
		{v4, true, 0}, {v6, true, 0}, {v4, false, 0},
		{v6, false, unix.EAFNOSUPPORT},
		{netip.AddrPort{}, false, unix.EINVAL},
		{netip.MustParseAddrPort("[fe80::1%eth0]:1"), true, unix.EINVAL},
	} {
		var s sockaddr
		length, errno := put(&s, tt.addr, tt.ipv6)
		if errno != tt.want {
			t.Errorf("put(%s, %v): %v, want %v", tt.addr, tt.ipv6, errno, tt.want)
			continue
		}
		if errno != 0 {
			continue
		}
		if got := addrPort(&s); got != tt.addr {
			t.Errorf("put(%s, %v) reads as %s", tt.addr, tt.ipv6, got)
		}
		if want := map[bool]uint32{true: 28, false: 16}[tt.ipv6]; length != want {
			t.Errorf("put(%s, %v): %d bytes, want %d", tt.addr, tt.ipv6, length, want)
		}
	}
}
