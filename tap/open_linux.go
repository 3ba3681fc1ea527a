package tap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/poll"
	"weft/tap/virtio"
)

// Open makes the interface that cfg describes, sets its MTU and brings it up. The interface exists as long as the
// process, so a crash leaves nothing behind. IPv6 is disabled on it: the address of the host in the overlay is on the
// bridge, and router solicitations of a port would be sent to every node.
//
// The errors wrap ErrConfig, ErrNoTun, ErrPermission or ErrNameInUse if a caller can react. On an error nothing is left
// behind.
func Open(cfg Config) (Device, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	features, err := probe()
	if err != nil {
		return nil, err
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("tap: %s: netlink: %w", cfg.Name, err)
	}
	d := &device{name: cfg.Name, nl: nl}
	if err := d.open(cfg, features); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// probe returns the flags that the tun driver supports.
func probe() (features uint32, err error) {
	fd, err := unix.Open(netlink.TUN, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return 0, fmt.Errorf("tap: %w (%w): modprobe tun, or in a container mount /dev/net/tun", ErrNoTun, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return 0, fmt.Errorf("tap: open %s: %w: run as root, or allow the container the device (c 10:200 rwm): %w",
			netlink.TUN, err, ErrPermission)
	case err != nil:
		return 0, fmt.Errorf("tap: open %s: %w", netlink.TUN, err)
	}
	defer unix.Close(fd)
	features, err = unix.IoctlGetUint32(fd, unix.TUNGETFEATURES)
	if err != nil {
		return 0, fmt.Errorf("tap: features of %s: %w", netlink.TUN, err)
	}
	return features, nil
}

// open makes the interface and sets it up. On an error, Close removes the parts that exist.
func (d *device) open(cfg Config, features uint32) error {
	if link, err := d.nl.LinkByName(cfg.Name); err == nil {
		return fmt.Errorf("tap: %s: %w: a %s has that name; choose another name, or delete it (ip link del %s)",
			cfg.Name, ErrNameInUse, link.Type(), cfg.Name)
	}
	const needed = unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE
	var (
		files []*os.File
		vnet  int
		err   error
	)
	flowQueues, length := 1, txQueueLen // water cannot request exclusive use of a TAP with many descriptors
	if cfg.Plain || features&needed != needed {
		files, err = openPlain(cfg.Name, cfg.Queues)
	} else {
		flowQueues, length = FlowQueues, flowQueueLen
		files, err = openOffload(cfg.Name, cfg.Queues*flowQueues)
		vnet = virtio.HeaderLen
	}
	if err != nil {
		return explain(cfg.Name, err)
	}
	if err := d.take(files, flowQueues, cfg.Name, vnet); err != nil {
		return err
	}
	if vnet > 0 {
		if d.offers, err = negotiate(d.queues[0].flows[0]); err != nil {
			return fmt.Errorf("tap: %s: offloads: %w", cfg.Name, err)
		}
	}
	return d.setUp(cfg.MTU, length)
}

// take makes the queues of descriptors, of which each queue gets some. It owns files, also on an error.
func (d *device) take(files []*os.File, each int, name string, vnet int) error {
	var flows []*poll.File
	for i, opened := range files {
		file, err := poll.Take(opened, name)
		if err == nil {
			flows = append(flows, file)
			err = limitWrites(file, sendBuffer)
		} else {
			opened.Close()
		}
		if err == nil && len(flows) == each {
			var q *queue
			if q, err = newQueue(d, flows, vnet); err == nil {
				d.queues, flows = append(d.queues, q), nil
			}
		}
		if err != nil {
			closeAll(files[i+1:])
			for _, f := range flows {
				f.Close()
			}
			return fmt.Errorf("tap: %s: descriptor %d: %w", name, i, err)
		}
	}
	return nil
}

// explain adds a cause and a remedy to an error of making the interface. netlink does not wrap the error number, so
// explain checks the text.
func explain(name string, err error) error {
	is := func(errno unix.Errno) bool {
		return errors.Is(err, errno) || strings.HasSuffix(err.Error(), errno.Error())
	}
	switch {
	case is(unix.EBUSY), is(unix.EEXIST):
		return fmt.Errorf("tap: %s: %w: another process uses it; stop that process, or choose another name: %w", name, ErrNameInUse, err)
	case is(unix.EPERM), is(unix.EACCES):
		return fmt.Errorf("tap: %s: %w: run as root, or add the capability: %w", name, ErrPermission, err)
	default:
		return fmt.Errorf("tap: %s: %w", name, err)
	}
}

// Sizes of the kernel's queues, in each direction.
const (
	// sendBuffer is in bytes, for each flow queue: about a dozen superframes, which a running pod receives in a fraction of a millisecond.
	sendBuffer = 1 << 20
	// txQueueLen is in frames, for each queue: the kernel's default for a TAP.
	txQueueLen = 1000
	// flowQueueLen is in frames or superframes, for each flow queue.
	flowQueueLen = 500
)

// setUp sets the new interface up as Open documents it.
func (d *device) setUp(mtu, length int) error {
	link, err := d.nl.LinkByName(d.name)
	if err != nil {
		return fmt.Errorf("tap: %s: %w", d.name, err)
	}
	d.index = link.Attrs().Index
	if err := d.nl.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("tap: %s: set MTU %d: %w", d.name, mtu, err)
	}
	if err := d.nl.LinkSetTxQLen(link, length); err != nil {
		return fmt.Errorf("tap: %s: set txqueuelen %d: %w", d.name, length, err)
	}
	if err := d.disableIPv6(link); err != nil {
		return fmt.Errorf("tap: %s: disable IPv6: %w", d.name, err)
	}
	if err := d.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("tap: %s: bring up: %w", d.name, err)
	}
	return nil
}

// disableIPv6 prevents the kernel from assigning an address to link. If /proc/sys is read-only, as in many containers,
// the interface only gets no link-local address, without which the kernel sends no solicitation.
func (d *device) disableIPv6(link netlink.Link) error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+d.name+"/disable_ipv6", []byte("1"), 0)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil // the kernel may have no IPv6
	}
	const addrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE, linux/if_link.h
	return d.nl.LinkSetIP6AddrGenMode(link, addrGenModeNone)
}
