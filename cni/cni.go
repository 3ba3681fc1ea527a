// Package cni is the CNI plugin: it joins a container's network namespace to the overlay by what the daemon on this
// host, or a delegated address manager, says.
//
// Who does what:
//
//	runtime ── ADD ──> Plugin ── Join ──> daemon      (bridge, MTU, addresses, gateways, MAC)
//	                     │  └─── ADD ──> ipam plugin  (instead, where ipam.type is set: addresses, gateways, routes)
//	                     ├─── Admit ──> weft-kube    (in Kubernetes: returns once the pod's policies are in force)
//	                     └──── Attach ──> podlink.Linker (veth pair, addresses, routes)
//
// The plugin keeps no state, but for a Queue of deletions while the daemon is away: a lease is found by Owner, a host link by the
// name derived from that. It follows the CNI
// specification 1.1.0 (github.com/containernetworking/cni, SPEC.md), and says so to runtimes since 0.3.1.
package cni

import (
	"context"
	"fmt"
	"io"
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

// About is what the plugin says of itself when it is called without a command.
const About = "CNI plugin weft: joins containers to the overlay network of the weft daemon on this host"

// Bounds of a call, below the patience of runtimes. Joining may wait for other nodes to give address space; undoing
// gets its own time when that has run out.
const (
	addTimeout   = 60 * time.Second
	otherTimeout = 30 * time.Second
	undoTimeout  = 15 * time.Second
)

// Versions returns the versions of the specification that the plugin speaks.
func Versions() version.PluginInfo { return version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0") }

// Daemon is what the plugin needs of the daemon on this host; *api.Client is one. Its errors are those of the client.
type Daemon interface {
	// Socket returns where the daemon is spoken to, for messages.
	Socket() string
	Status(ctx context.Context) (api.Status, error)
	IPAM(ctx context.Context) (api.IPAM, error)
	Join(ctx context.Context, r api.JoinRequest) (api.Join, error)
	Leases(ctx context.Context, owner string) ([]api.Lease, error)
	Release(ctx context.Context, owner, ip string) error
	// Admit and Admits are answered by weft-kube, at a socket of its own.
	Admit(ctx context.Context, a api.Admission) error
	Admits(ctx context.Context) error
}

var _ Daemon = (*api.Client)(nil)

// Plugin answers the verbs of CNI. Its fields are constant, its methods may be called concurrently for different
// containers.
type Plugin struct {
	// Links makes the links.
	Links podlink.Linker
	// Dial returns the daemon at a socket; empty means the default.
	Dial func(socket string) Daemon
	// Exec runs delegated address managers; nil means as programs found along CNI_PATH.
	Exec invoke.Exec
	// Out takes the results.
	Out io.Writer
}

// New returns the plugin as the runtime calls it.
func New() *Plugin {
	return &Plugin{
		Links: podlink.New(),
		Dial:  func(socket string) Daemon { return api.NewClient(socket) },
		Out:   os.Stdout,
	}
}

// Funcs returns the plugin's verbs for skel.PluginMainFuncs. Errors of the verbs are *types.Error.
func (p *Plugin) Funcs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: p.Add, Del: p.Del, Check: p.Check, GC: p.GC, Status: p.Status}
}

// call is one call of the plugin for one container.
type call struct {
	*Plugin
	args   *skel.CmdArgs
	conf   *config
	daemon Daemon
	holder holder.Holder
	host   string // name of the host link
	leased bool   // ADD has asked for addresses, and may have got them
}

// newCall reads what the runtime wants; the result is of use for all verbs.
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

// delegated reports whether addresses come from another plugin.
func (c *call) delegated() bool { return c.conf.IPAM.Type != "" }

// release ends the leases of the container's interface, by whoever gave them. That there are none is success.
func (c *call) release(ctx context.Context) error {
	if c.delegated() {
		return delegateError(c.conf, invoke.DelegateDel(ctx, c.conf.IPAM.Type, c.args.StdinData, c.Exec))
	}
	return daemonError(c.daemon, ignoreNotFound(c.daemon.Release(ctx, c.holder.String(), "")))
}

// queue returns the queue of deletions of the daemon at the socket.
func (c *call) queue() deletions.Queue { return deletions.Open(c.daemon.Socket()) }

// prevResult returns the result of the plugins before this one, at CHECK of all of them; nil if there is none.
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
