package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"weft/internal/api"
	"weft/internal/kube/firewall"
)

// Config is what an Agent works with. All fields are constant.
type Config struct {
	// Node is the name of this node's object.
	Node string
	// StateDir is a folder that outlives reboots, RunDir one that needs not.
	StateDir, RunDir string
	// Install says where the plugin is and goes.
	Install *Install
	// SecretFile is looked at for changes; empty: there is none.
	SecretFile string
	// Admission takes the plugin's questions, Health those of the kubelet and of Prometheus.
	Admission, Health net.Listener

	API     kubernetes.Interface
	Dynamic dynamic.Interface // for kinds that a cluster may not have
	Daemon  Daemon
	Filter  firewall.Firewall
	// Samples calls back for packets that Filter dropped, until its context ends; nil: there are none.
	Samples func(ctx context.Context, f func(firewall.Drop)) error
	Log     *slog.Logger
}

// Daemon is what the agent needs of the node daemon; *api.Client is one.
type Daemon interface {
	Status(ctx context.Context) (api.Status, error)
	Peers(ctx context.Context) ([]api.Peer, error)
	IPAM(ctx context.Context) (api.IPAM, error)
	Connect(ctx context.Context, targets []string, replace bool) error
	Reclaim(ctx context.Context, peers []string) ([]api.Reclaimed, error)
	Reload(ctx context.Context) (api.Reload, error)
}

var _ Daemon = (*api.Client)(nil)

// Agent is what a Kubernetes node needs beside the daemon.
type Agent struct {
	cfg      Config
	cluster  *cluster
	enforcer *enforcer
	nodes    *nodes
	health   *health
}

// New returns an idle agent.
func New(cfg Config) (*Agent, error) {
	a := &Agent{cfg: cfg, health: &health{}}
	var err error
	if a.cluster, err = newCluster(cfg); err != nil {
		return nil, err
	}
	if a.enforcer, err = newEnforcer(cfg, a.cluster, a.health); err != nil {
		return nil, err
	}
	if a.nodes, err = newNodes(cfg, a.cluster); err != nil {
		return nil, err
	}
	return a, nil
}

// Run works until ctx ends. It does not end because the API server is away: what was enforced and known stays so.
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
	run("watching the cluster", a.cluster.run)
	run("policies", a.enforcer.run)
	run("nodes", a.nodes.run)
	run("installing the plugin", a.install)
	run("secret", a.watchSecret)
	run("addresses of the API servers", a.rememberAPIServers)
	run("admission", func(ctx context.Context) error { return serve(ctx, a.cfg.Admission, a.enforcer.handler()) })
	run("health", func(ctx context.Context) error { return serve(ctx, a.cfg.Health, a.healthHandler()) })
	if a.cfg.Samples != nil {
		run("samples of drops", func(ctx context.Context) error {
			if err := a.cfg.Samples(ctx, a.enforcer.logDrop); err != nil && ctx.Err() == nil {
				a.cfg.Log.Warn("dropped packets are counted, but not logged", "err", err)
			}
			return nil
		})
	}
	return group.Wait()
}

// serve answers requests until ctx ends.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// every calls f now and then again each period, until ctx ends.
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
