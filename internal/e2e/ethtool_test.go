package e2e

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtool sets one of the legacy settings of an interface (struct ethtool_value of linux/ethtool.h).
func ethtool(fd int, ifname string, command, value uint32) error {
	setting := struct{ command, value uint32 }{command, value}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&setting)}
	copy(request.name[:unix.IFNAMSIZ-1], ifname)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("ethtool %#x on %s: %w", command, ifname, errno)
	}
	return nil
}
