package docker

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"weft/internal/ether"
	"weft/internal/hostnet"
	"weft/internal/podlink"
)

// Kernel makes the interfaces of containers in the network namespace of the calling thread.
type Kernel struct {
	// HostRun is where this process sees the folder /run of the host.
	HostRun string
}

var _ Links = Kernel{}

// Offer implements Links.
func (Kernel) Offer(ctx context.Context, s podlink.Spec) error { return podlink.New().Offer(ctx, s) }

// Remove implements Links.
func (Kernel) Remove(ctx context.Context, hostName string) error {
	return podlink.New().Detach(ctx, "", "", hostName)
}

// Exists implements Links.
func (Kernel) Exists(name string) bool { return hostnet.LinkExists(name) }

// announcePause is the time between two looks at an interface that Docker configures.
const announcePause = 20 * time.Millisecond

// errNoInterface means that Docker has not configured an interface in time.
var errNoInterface = errors.New("docker: no interface with the MAC and an address")

// Announce implements Links.
func (k Kernel) Announce(ctx context.Context, netns string, mac ether.Addr) error {
	netns = filepath.Join(k.HostRun, strings.TrimPrefix(strings.TrimPrefix(netns, "/var"), "/run"))
	for {
		sent, err := podlink.Announce(netns, mac)
		if sent && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%w: %s", errNoInterface, mac), err)
		case <-time.After(announcePause):
		}
	}
}
