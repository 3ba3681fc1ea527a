package tap

import (
	"errors"
	"fmt"
	"strings"
)

// Errors that Open wraps, each in a sentence that names the device and the mend.
var (
	// ErrNoTun: the kernel offers no /dev/net/tun.
	ErrNoTun = errors.New("no /dev/net/tun")
	// ErrPermission: the process may not make interfaces.
	ErrPermission = errors.New("CAP_NET_ADMIN is missing")
	// ErrNameInUse: a link of that name exists, or another process holds it.
	ErrNameInUse = errors.New("the name is in use")
	// ErrConfig: a field of Config cannot be meant.
	ErrConfig = errors.New("bad configuration")
)

// Limits of Config, which are the kernel's.
const (
	maxName   = 15 // IFNAMSIZ - 1
	minMTU    = 68
	maxMTU    = 65521 // with the Ethernet header still 65535 bytes
	maxQueues = 256   // MAX_TAP_QUEUES
)

// Config says what interface Open makes.
type Config struct {
	// Name of the interface, at most 15 bytes. It must not exist.
	Name string
	// MTU in bytes, the Ethernet header not counted.
	MTU int
	// Queues is the number of packet queues, at least 1. The kernel spreads flows over them, so each wants a goroutine.
	Queues int
	// Plain asks for a TAP without the virtio-net header, which can never carry superframes. Open takes it by itself on
	// a kernel that knows no such header.
	Plain bool
}

// Validate returns an error that wraps ErrConfig and names the field that is wrong, or nil.
func (c Config) Validate() error {
	switch {
	case c.Name == "" || len(c.Name) > maxName || c.Name == "." || c.Name == ".." ||
		strings.ContainsAny(c.Name, "/:% \t\n"):
		return fmt.Errorf("tap: %w: Name %q is no name for an interface", ErrConfig, c.Name)
	case c.MTU < minMTU || c.MTU > maxMTU:
		return fmt.Errorf("tap: %w: MTU %d is outside %d to %d", ErrConfig, c.MTU, minMTU, maxMTU)
	case c.Queues < 1 || c.Queues > maxQueues:
		return fmt.Errorf("tap: %w: Queues %d is outside 1 to %d", ErrConfig, c.Queues, maxQueues)
	}
	return nil
}
