package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"weft/internal/api"
	"weft/internal/hostnet"
	"weft/internal/kube/cluster"
	"weft/internal/kube/firewall"
)

// Config is the configuration of an Agent. Fields must not change after New.
type Config struct {
	// Node is the name of this node's object.
	Node string
	// StateDir is a folder that survives reboots. RunDir may be lost at a reboot.
	StateDir, RunDir string
	// Install installs the CNI plugin.
	Install *Install
	// Admission accepts connections of the plugin, Health those of the kubelet and of Prometheus.
	Admission, Health net.Listener

	API     kubernetes.Interface
	Dynamic dynamic.Interface // for kinds that a cluster may not have; nil: none of them
	Daemon  Daemon
	Filter  firewall.Firewall
	// Bridged keeps bridged packets visible to Filter; nil: nothing does.
	Bridged Visibility
	// FilterChanges reports changes of the tables of Filter, so that it is restored at once; nil: it is checked periodically only.
	FilterChanges FilterChanges
	// Links are the network interfaces of the host.
	Links Links
	// Identities renews the identity of the node; nil: nothing does.
	Identities *Identities
	// DropLog reports packets that Filter has dropped; nil: they are not logged.
	DropLog DropLog
	// Answers reports DNS answers, for rules by domain name, and Connections the connections that keep their addresses open; nil: none.
	Answers     AnswerLog
	Connections ConnectionTable
	Log         *slog.Logger
}

// FilterChanges reports changes of a packet filter. *firewall.NFT is one.
type FilterChanges interface {
	// Changed returns the channel of wake-ups, which is never closed.
	Changed() <-chan struct{}
	// Wait waits until ctx ends, or until changes can no longer be reported: then it returns why, which ends the agent.
	Wait(ctx context.Context) error
}

// Links are the network interfaces of a host. Its methods may be called concurrently.
type Links interface {
	// Exists reports whether there is an interface of that name, or whether that is unknown.
	Exists(name string) bool
}

// HostLinks are the interfaces in the network namespace of the calling thread.
type HostLinks struct{}

// Exists implements Links.
func (HostLinks) Exists(name string) bool { return name != "" && hostnet.LinkExists(name) }

// DropLog reports samples of dropped packets. firewall.NFLog is one.
type DropLog interface {
	// Samples calls report for each sample, from the calling goroutine, until ctx ends or an error occurs.
	Samples(ctx context.Context, report func(firewall.Drop)) error
}

// Daemon is the part of the node daemon's API that the agent uses. *api.Client is one.
type Daemon interface {
	Status(ctx context.Context) (api.Status, error)
	Peers(ctx context.Context) ([]api.Peer, error)
	IPAM(ctx context.Context) (api.IPAM, error)
	Connect(ctx context.Context, targets []string, replace bool) error
	Reclaim(ctx context.Context, peers []string) ([]api.Reclaimed, error)
	Guard(ctx context.Context, r api.GuardRequest) error
}

var _ Daemon = (*api.Client)(nil)

// Agent connects one Kubernetes node with its daemon; see the package comment.
type Agent struct {
	cfg        Config
	cluster    *cluster.Cluster
	enforcer   *enforcer
	bridged    *bridged
	nodes      *nodes
	conditions *conditions
	health     *health
}

// New returns an idle agent. It reads the state of an earlier agent from the folders of cfg.
func New(cfg Config) (*Agent, error) {
	a := &Agent{cfg: cfg, health: &health{}}
	var err error
	if a.cluster, err = newCluster(cfg); err != nil {
		return nil, err
	}
	if a.enforcer, err = newEnforcer(cfg, a.cluster, a.health); err != nil {
		return nil, err
	}
	a.bridged = &bridged{settings: cfg.Bridged, health: a.health, log: cfg.Log}
	if a.nodes, err = newNodes(cfg, a.cluster); err != nil {
		return nil, err
	}
	if a.conditions, err = newConditions(cfg, a.enforcer.recorder); err != nil {
		return nil, err
	}
	return a, nil
}

// newCluster returns the cache of the cluster.
func newCluster(cfg Config) (*cluster.Cluster, error) {
	return cluster.New(cluster.Config{
		API: cfg.API, Dynamic: cfg.Dynamic, Log: cfg.Log,
		Annotations: []string{corev1.MirrorPodAnnotationKey, GuardAnnotation, AllowAnnotation, PeerAnnotation, AddressesAnnotation},
	})
}

// Pauses before the first lists of a start, so that the nodes of a large cluster do not read it at once after an outage of power.
const (
	startPausePerNode = time.Millisecond
	maxStartPause     = 10 * time.Second
	soonAfterBoot     = 10 * time.Minute
)

// startPause returns a random pause for a cluster of the given number of nodes, if the host has just booted. Rules in force stay meanwhile.
func startPause(nodes int) time.Duration {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil || time.Duration(info.Uptime)*time.Second > soonAfterBoot {
		return 0
	}
	return rand.N(min(time.Duration(nodes)*startPausePerNode, maxStartPause) + 1)
}

// Run runs the agent until ctx ends, and joins all its goroutines. While the API server does not answer, the rules in force
// and the known nodes stay.
func (a *Agent) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	run := func(what string, f func(context.Context) error) {
		group.Go(func() error {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("kube: %s: %w", what, err)
			}
			return nil
		})
	}
	run("watching the cluster", func(ctx context.Context) error {
		if err := pause(ctx, startPause(len(a.nodes.departed.seen))); err != nil {
			return err
		}
		return a.cluster.Run(ctx)
	})
	run("policies", a.enforcer.run)
	run("bridged packets", a.bridged.run)
	run("nodes", a.nodes.run)
	run("installing the plugin", a.install)
	run("addresses of the API servers", a.rememberAPIServers)
	run("admission", func(ctx context.Context) error { return serve(ctx, a.cfg.Admission, a.enforcer.handler()) })
	run("health", func(ctx context.Context) error { return serve(ctx, a.cfg.Health, a.healthHandler()) })
	if a.cfg.Identities != nil {
		run("identity", a.cfg.Identities.run)
	}
	if a.cfg.FilterChanges != nil {
		run("changes of packet filters", a.cfg.FilterChanges.Wait)
	}
	if a.cfg.Answers != nil {
		run("DNS answers", a.enforcer.domains.run)
	}
	if a.cfg.DropLog != nil {
		run("samples of drops", func(ctx context.Context) error {
			if err := a.cfg.DropLog.Samples(ctx, a.enforcer.logDrop); err != nil && ctx.Err() == nil {
				a.cfg.Log.Warn("dropped packets are counted but not logged", "err", err)
			}
			return nil
		})
	}
	return group.Wait()
}

// serve serves requests until ctx ends.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// every calls f at once and then once a period, until ctx ends. It returns the error of ctx.
func every(ctx context.Context, period time.Duration, f func()) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		f()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
