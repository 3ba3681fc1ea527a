package tap

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"

	"weft/tap/virtio"
)

var _ Device = (*device)(nil)

// device is a TAP of the kernel, with or without the virtio-net header.
type device struct {
	// Constant after Open.
	name   string
	index  int
	offers virtio.Features
	queues []*queue

	// Guarded by mu; nil after Close. It stays in the network namespace in which Open was called.
	mu sync.Mutex
	nl *netlink.Handle

	// Atomic.
	closed atomic.Bool
}

// Name implements Device.
func (d *device) Name() string { return d.name }

// Features implements Device.
func (d *device) Features() virtio.Features { return d.offers }

// Queues implements Device.
func (d *device) Queues() []Queue {
	queues := make([]Queue, len(d.queues))
	for i, q := range d.queues {
		queues[i] = q
	}
	return queues
}

// MTU implements Device: it asks the kernel each time, as other programs may change it.
func (d *device) MTU() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.nl == nil {
		return 0, net.ErrClosed
	}
	link, err := d.nl.LinkByIndex(d.index)
	if err != nil {
		return 0, fmt.Errorf("tap: %s: MTU: %w", d.name, err)
	}
	return link.Attrs().MTU, nil
}

// Close implements Device. The kernel removes the interface with its last descriptor.
func (d *device) Close() error {
	if d.closed.Swap(true) {
		return nil
	}
	var errs []error
	for _, q := range d.queues {
		errs = append(errs, q.close())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nl.Close()
	d.nl = nil
	return errors.Join(errs...)
}
