// Package cni is the CNI plugin: it joins a container's network namespace to the overlay with addresses from the daemon on this
// host or from a delegated address manager.
//
//	runtime -- ADD --> Plugin -- Join --> daemon      (bridge, MTU, addresses, gateways, MAC)
//	                     |  +--- ADD --> ipam plugin  (instead, if ipam.type is set: addresses, gateways, routes)
//	                     +--- Admit --> weft-kube     (in Kubernetes: returns once the pod's policies are in force)
//	                     +--- Guard --> daemon        (returns once the container's port is bound to its addresses)
//	                     +---- Attach --> podlink.Linker (veth pair, addresses, routes)
//	                     +--- AddName --> daemon      (if the configuration says so)
//
// The plugin is stateless, apart from a queue of deletions while the daemon does not run. It finds a lease by its holder, and a
// host link by the name that is derived from the holder. It implements the CNI specification 1.1.0
// (github.com/containernetworking/cni, SPEC.md) and supports runtimes since version 0.3.1.
package cni

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"weft/internal/api"
	"weft/internal/leases/deletions"
	"weft/internal/leases/holder"
	"weft/internal/podlink"
)

// About is printed when the plugin is called without a command.
const About = "CNI plugin weft: joins containers to the overlay network of the weft daemon on this host"

// Timeouts of a call, below those of runtimes. Joining may wait for address space of other nodes. Undoing has a timeout of its
// own, which starts when joining has failed.
const (
	addTimeout   = 60 * time.Second
	otherTimeout = 30 * time.Second
	undoTimeout  = 15 * time.Second
)

// Versions returns the versions of the specification that the plugin supports.
func Versions() version.PluginInfo { return version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0") }

// Daemon is the part of the daemon's API that the plugin uses. *api.Client is one, and errors are those of the client.
type Daemon interface {
	// Socket returns the path of the daemon's socket, for messages.
	Socket() string
	Status(ctx context.Context) (api.Status, error)
	IPAM(ctx context.Context) (api.IPAM, error)
	Join(ctx context.Context, r api.JoinRequest) (api.Join, error)
	Leases(ctx context.Context, owner string) ([]api.Lease, error)
	Release(ctx context.Context, owner, ip string) error
	ReleaseBecause(ctx context.Context, owner, reason string) error
	// Guard and Unguard set and end what the port of a container may send.
	Guard(ctx context.Context, r api.GuardRequest) error
	Unguard(ctx context.Context, owner string) error
	// AddName gives addresses a name that ends with their leases.
	AddName(ctx context.Context, r api.NameRequest) error
	// Admit and Admits are requests to weft-kube, which has a socket of its own.
	Admit(ctx context.Context, a api.Admission) (api.Admitted, error)
	Admits(ctx context.Context) error
}

var _ Daemon = (*api.Client)(nil)

// Plugin implements the verbs of CNI. Its fields must not change. Its methods may be called concurrently for different
// containers.
type Plugin struct {
	// Links creates and removes the veth pairs.
	Links podlink.Linker
	// Dial returns a client of the daemon at a socket; empty: the default socket.
	Dial func(socket string) Daemon
	// Exec runs delegated address managers; nil: as programs in the folders of CNI_PATH.
	Exec invoke.Exec
	// Runtime is the path of the executable that called the plugin; empty: unknown.
	Runtime string
	// Out receives the results.
	Out io.Writer
	// Logger receives what the results do not say; nil: nothing is logged.
	Logger *slog.Logger
}

// New returns the plugin with the kernel, the daemon of this host and standard output.
func New() *Plugin {
	return &Plugin{
		Links: podlink.New(),
		Dial:  func(socket string) Daemon { return api.NewClient(socket) },
		Out:   os.Stdout,

		Runtime: callingRuntime(),
		Logger:  slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
}

// Funcs returns the plugin's verbs for skel.PluginMainFuncs. Errors of the verbs are *types.Error.
func (p *Plugin) Funcs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: p.Add, Del: p.Del, Check: p.Check, GC: p.GC, Status: p.Status}
}

// log returns the logger of the plugin; never nil.
func (p *Plugin) log() *slog.Logger {
	if p.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return p.Logger
}

// call is the state of one call of the plugin.
type call struct {
	*Plugin
	args   *skel.CmdArgs
	conf   *config
	daemon Daemon
	holder holder.Holder
	host   string // name of the host link
	leased bool   // ADD has requested addresses, which may be leased now
}

// newCall reads the configuration and derives the names of lease and link, for all verbs.
func (p *Plugin) newCall(args *skel.CmdArgs) (*call, error) {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return nil, err
	}
	c := &call{Plugin: p, args: args, conf: conf, daemon: p.Dial(conf.Socket)}
	c.holder = holder.ForContainer(conf.Name, args.ContainerID, args.IfName)
	c.host, _ = c.holder.HostLink()
	return c, nil
}

// delegated reports whether addresses come from another address manager.
func (c *call) delegated() bool { return c.conf.IPAM.Type != "" }

// release ends the leases of the container's interface, at the daemon or the delegated address manager. It succeeds if there are
// none.
func (c *call) release(ctx context.Context) error {
	if c.delegated() {
		c.unguard(ctx)
		return delegateError(c.conf, invoke.DelegateDel(ctx, c.conf.IPAM.Type, c.args.StdinData, c.Exec))
	}
	return daemonError(c.daemon, ignoreNotFound(c.daemon.Release(ctx, c.holder.String(), "")))
}

// queue returns the queue of deletions of the daemon at the socket.
func (c *call) queue() deletions.Queue { return deletions.Open(c.daemon.Socket()) }

// prevResult returns the result of the plugins before this one in the chain, or of all plugins at CHECK; nil if there is none.
func (c *call) prevResult() (*types100.Result, error) {
	if err := version.ParsePrevResult(&c.conf.PluginConf); err != nil {
		return nil, failure(types.ErrDecodingFailure, fmt.Errorf("prevResult: %w", err))
	}
	if c.conf.PrevResult == nil {
		return nil, nil
	}
	res, err := types100.NewResultFromResult(c.conf.PrevResult)
	if err != nil {
		return nil, failure(types.ErrDecodingFailure, fmt.Errorf("prevResult: %w", err))
	}
	return res, nil
}
