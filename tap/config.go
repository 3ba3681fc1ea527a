package tap

import (
	"errors"
	"fmt"
	"strings"
)

// Errors that Open wraps. The errors that wrap them name the device and a remedy.
var (
	// ErrNoTun: the kernel has no /dev/net/tun.
	ErrNoTun = errors.New("no /dev/net/tun")
	// ErrPermission: the process may not make interfaces.
	ErrPermission = errors.New("CAP_NET_ADMIN is missing")
	// ErrNameInUse: a link of that name exists, or another process uses it.
	ErrNameInUse = errors.New("the name is in use")
	// ErrConfig: a field of Config is invalid.
	ErrConfig = errors.New("bad configuration")
)

// Limits of Config, from the kernel.
const (
	maxName   = 15 // IFNAMSIZ - 1
	minMTU    = 68
	maxMTU    = 65521            // 65535 bytes with the Ethernet header
	maxQueues = 256 / FlowQueues // MAX_TAP_QUEUES
)

// Config describes the interface that Open makes.
type Config struct {
	// Name of the interface, at most 15 bytes. It must not exist.
	Name string
	// MTU in bytes, without the Ethernet header.
	MTU int
	// Queues is the number of packet queues, at least 1. The kernel distributes flows over them, so each needs a
	// goroutine.
	Queues int
	// Plain requests a TAP without the virtio-net header, which cannot carry superframes. Open also makes one if the
	// kernel does not support the header.
	Plain bool
}

// Validate returns an error that wraps ErrConfig and names the invalid field, or nil.
func (c Config) Validate() error {
	switch {
	case c.Name == "" || len(c.Name) > maxName || c.Name == "." || c.Name == ".." ||
		strings.ContainsAny(c.Name, "/:% \t\n"):
		return fmt.Errorf("tap: %w: Name %q is not a valid interface name", ErrConfig, c.Name)
	case c.MTU < minMTU || c.MTU > maxMTU:
		return fmt.Errorf("tap: %w: MTU %d is outside %d to %d", ErrConfig, c.MTU, minMTU, maxMTU)
	case c.Queues < 1 || c.Queues > maxQueues:
		return fmt.Errorf("tap: %w: Queues %d is outside 1 to %d", ErrConfig, c.Queues, maxQueues)
	}
	return nil
}
