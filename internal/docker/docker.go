// Package docker is weft's plugin for Docker: a network driver and an IPAM driver (the Container Network Model).
//
//	dockerd -- plugin protocol --> Plugin -- API --> daemon of weft   addresses, guard, names
//	        <-- Engine API ------     |
//	                                  +--- Offer --> podlink          a pair, one end of it a port of the bridge
//
// A network is a subnet of a range of the overlay. Its containers have an interface on the bridge, which exchanges packets with that
// subnet alone; Docker's own bridge docker_gwbridge gives them a default route, and publishes their ports. See docs/DOCKER.md and
// docs/adr/0056-docker.md.
//
// protocol.go has the requests, handler.go serves them. pools.go and addresses.go are the IPAM driver, networks.go and endpoints.go the
// network driver. sync.go follows the engine, and ends what is left of containers and networks that are gone: names.go has the names of
// containers, published.go the networks that nodes know of one another, starts.go the containers that could not start.
package docker

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"weft/internal/api"
	"weft/internal/dockerapi"
	"weft/internal/ether"
	"weft/internal/leases/deletions"
	"weft/internal/podlink"
	"weft/internal/signal"
)

// DriverName is the name of both drivers, unless Docker knows the plugin by another one.
const DriverName = "weft"

// Patience is how long a request waits for a daemon that is away, as during an upgrade, unless the configuration says otherwise.
const Patience = 10 * time.Second

// Pauses between attempts.
const (
	enginePause = time.Second
	// syncPause is the shortest time between two comparisons with the engine, and syncPeriod the longest.
	syncPause  = 200 * time.Millisecond
	syncPeriod = 5 * time.Second
)

// Daemon is the part of the daemon's API that the plugin uses. *api.Client is one, and errors are those of the client.
type Daemon interface {
	Status(ctx context.Context) (api.Status, error)
	Leases(ctx context.Context, owner string) ([]api.Lease, error)
	Allocate(ctx context.Context, r api.AddressRequest) ([]api.Lease, error)
	Release(ctx context.Context, owner, ip string) error
	Expose(ctx context.Context, r api.ExposeRequest) ([]api.Exposed, error)
	Guard(ctx context.Context, r api.GuardRequest) error
	Unguard(ctx context.Context, owner string) error
	Names(ctx context.Context, name string, ip netip.Addr) ([]api.Name, error)
	AddName(ctx context.Context, r api.NameRequest) error
	RemoveName(ctx context.Context, r api.NameRequest) error
}

var _ Daemon = (*api.Client)(nil)

// Engine is the part of Docker's own API that the plugin uses. *dockerapi.Client is one.
type Engine interface {
	Networks(ctx context.Context) ([]dockerapi.Network, error)
	ContainersOn(ctx context.Context, networks []string) ([]string, error)
	Container(ctx context.Context, name string) (dockerapi.Container, error)
	Start(ctx context.Context, id string) error
	Watch(ctx context.Context, changed func()) error
}

var _ Engine = (*dockerapi.Client)(nil)

// Links makes the interfaces of containers. *Kernel is the real one.
type Links interface {
	// Offer creates a pair; Docker moves its pod end into a container. The errors are those of podlink.Linker.
	Offer(ctx context.Context, s podlink.Spec) error
	// Remove removes the pair with a host end. One that does not exist is success.
	Remove(ctx context.Context, hostName string) error
	// Exists reports whether this host has an interface.
	Exists(name string) bool
	// Announce announces the addresses of the interface with a MAC in the namespace at a path, once it has some.
	Announce(ctx context.Context, netns string, mac ether.Addr) error
}

// Config is what a Plugin is made of. All fields but Engine and Logger are required.
type Config struct {
	Driver    string // name by which Docker knows the driver
	StateFile string // networks and endpoints of this host
	Daemon    Daemon
	Deletions deletions.Queue
	Engine    Engine // nil: container names are not published, and nothing is repaired
	Links     Links
	Patience  time.Duration // 0: Patience
	Logger    *slog.Logger  // nil: nothing is logged
}

// Plugin serves the requests of one Docker Engine. Its methods may be called concurrently.
type Plugin struct {
	cfg    Config // constant after New
	log    *slog.Logger
	state  *state
	daemon Daemon // cfg.Daemon with patience, for requests of Docker
	// changed makes Run compare with the engine.
	changed signal.Chan
	// known is what the last comparison has found out about networks.
	known knownNetworks
	// starts has the containers that Run has started, absent how often in a row the engine did not list a network, and silentSince since when
	// it does not answer for a container. Only the goroutine of Run uses them.
	starts       map[string]startOf
	absent       map[string]int
	silentSince  time.Time // zero: it answers
	silentLogged bool
	// busy are the endpoints that are being made, and reserved the subnets of networks that are.
	busy     busyMACs
	reserved reservedPools
}

// New returns a Plugin with the networks and endpoints of its state file.
func New(cfg Config) (*Plugin, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Patience == 0 {
		cfg.Patience = Patience
	}
	s, err := openState(cfg.StateFile)
	if err != nil {
		return nil, err
	}
	return &Plugin{
		cfg: cfg, log: cfg.Logger, state: s, daemon: patient{cfg.Daemon, cfg.Patience}, changed: signal.New(),
		starts: map[string]startOf{}, absent: map[string]int{},
	}, nil
}
