package tap

import (
	"fmt"
	"io"
	"os"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// openOffload makes a TAP with the virtio-net header and returns its descriptors. Until negotiate has set the
// offloads, the kernel completes every frame before the reader gets it.
func openOffload(name string, descriptors int) ([]*os.File, error) {
	link := &netlink.Tuntap{
		LinkAttrs:  netlink.LinkAttrs{Name: name},
		Mode:       netlink.TUNTAP_MODE_TAP,
		NonPersist: true,
		Queues:     1,
		// Exclusive: without it the first queue would silently become a queue of a multi-queue TAP that another process
		// made since the name was checked, and take some of its frames.
		Flags: netlink.TUNTAP_MULTI_QUEUE_DEFAULTS | netlink.TUNTAP_VNET_HDR | netlink.TUNTAP_TUN_EXCL,
	}
	if err := netlink.LinkAdd(link); err != nil {
		return nil, err
	}
	link.Flags &^= netlink.TUNTAP_TUN_EXCL
	if descriptors > 1 {
		if _, err := link.AddQueues(descriptors - 1); err != nil {
			closeAll(link.Fds)
			return nil, err
		}
	}
	return link.Fds, nil
}

// openPlain makes a TAP without the header and returns its descriptors. water cannot request exclusive use, so
// the earlier check of the name has to be enough. If the kernel refuses, water leaves a descriptor of /dev/net/tun
// open, without an interface.
func openPlain(name string, descriptors int) ([]*os.File, error) {
	params := water.PlatformSpecificParams{Name: name, MultiQueue: descriptors > 1}
	var files []*os.File
	for range descriptors {
		ifce, err := water.New(water.Config{DeviceType: water.TAP, PlatformSpecificParams: params})
		if err != nil {
			closeAll(files)
			return nil, err
		}
		file, err := fileOf(ifce.ReadWriteCloser)
		if err != nil {
			ifce.Close()
			closeAll(files)
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// fileOf returns the file of a TAP of water: batches need its descriptor. It sets close-on-exec, which water does not:
// if child processes inherited the descriptor, the interface would outlive this process.
func fileOf(rwc io.ReadWriteCloser) (*os.File, error) {
	file, ok := rwc.(*os.File)
	if !ok {
		return nil, fmt.Errorf("water has a %T instead of a file", rwc)
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	return file, raw.Control(func(fd uintptr) { unix.CloseOnExec(int(fd)) })
}

func closeAll(files []*os.File) {
	for _, file := range files {
		file.Close()
	}
}
