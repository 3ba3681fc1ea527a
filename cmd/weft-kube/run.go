package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"weft/internal/api"
	"weft/internal/kube"
	"weft/internal/kube/firewall"
)

// runOptions say where things are.
type runOptions struct {
	clusterOptions
	install  kube.Install
	runDir   string
	httpAddr string
}

func newRunCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Work beside the daemon: plugin, peers, address space of deleted nodes, network policies",
		Long: "Work beside the daemon: keep the CNI plugin installed, tell the daemon of the other nodes, reclaim the address space of deleted\n" +
			"ones, enforce network policies. One that runs already on this host is waited for: the new one takes its place when it stops.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runAgent(cmd.Context(), &o) },
	}
	f := cmd.Flags()
	o.addFlags(f)
	f.StringVar(&o.install.Plugin, "plugin", "/usr/bin/weft-cni", "the plugin's program; reference plugins may be beside it")
	f.StringVar(&o.install.BinDir, "bin-dir", "/opt/cni/bin", "folder of CNI plugins")
	f.StringVar(&o.install.ConfDir, "conf-dir", "/etc/cni/net.d", "folder of CNI configurations")
	f.StringVar(&o.install.Socket, "socket", api.DefaultSocket, "the daemon's API socket")
	f.StringVar(&o.runDir, "run-dir", "/run/weft", "folder for the socket that the plugin talks to")
	f.StringVar(&o.httpAddr, "http-addr", "127.0.0.1:6781", "address of health checks and metrics")
	return cmd
}

func runAgent(ctx context.Context, o *runOptions) error {
	log := newLog()
	client, more, err := o.clients()
	if err != nil {
		return err
	}
	filter, err := firewall.New(ctx)
	if err != nil {
		return err
	}
	release, err := takePlace(ctx, filepath.Join(o.runDir, "kube.lock"))
	if err != nil {
		return err
	}
	defer release()
	o.install.Policy = filepath.Join(o.runDir, "kube.sock")
	admission, err := listenUnix(ctx, o.install.Policy)
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	health, err := lc.Listen(ctx, "tcp", o.httpAddr)
	if err != nil {
		return errors.Join(fmt.Errorf("--http-addr: %w", err), admission.Close())
	}
	agent, err := kube.New(kube.Config{
		Node: o.node, StateDir: o.stateDir, RunDir: o.runDir, Install: &o.install, SecretFile: o.secretFile,
		Admission: admission, Health: health, API: client, Dynamic: more, Daemon: api.NewClient(o.install.Socket),
		Filter: filter, Samples: firewall.Samples, Log: log,
	})
	if err != nil {
		return err
	}
	go func() {
		for ctx.Err() == nil {
			if err := kube.RememberAPIServers(ctx, client, o.stateDir); err == nil {
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Minute):
			}
		}
	}()
	log.Info("weft-kube runs", "node", o.node)
	if err := agent.Run(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// takePlace returns once no other agent runs on this host; release lets the next one.
func takePlace(ctx context.Context, path string) (release func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--run-dir: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("--run-dir: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("--run-dir: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("--run-dir: %w", err), l.Close())
	}
	return l, nil
}
