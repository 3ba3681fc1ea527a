package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/filelock"
	"weft/internal/hint"
	"weft/internal/kube"
	"weft/internal/kube/bridgenf"
	"weft/internal/kube/firewall"
	"weft/internal/podlink"
	"weft/internal/unixsocket"
	"weft/internal/usage"
)

// runOptions are the flags of "weft-kube run".
type runOptions struct {
	clusterOptions
	install  kube.Install
	guard    string
	runDir   string
	httpAddr string
	caFile   string
}

func newRunCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run beside the daemon: plugin, peers, address space of deleted nodes, network policies",
		Long: "Run beside the daemon: keep the CNI plugin installed, connect the daemon to the other nodes, reclaim the address\n" +
			"space of deleted nodes and enforce network policies. If another weft-kube runs on this host, the new one waits\n" +
			"and replaces it when it stops.",
		Args: usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return runAgent(cmd.Context(), &o) },
	}
	f := cmd.Flags()
	o.addFlags(f)
	f.StringVar(&o.install.Plugin, "plugin", "/usr/bin/weft-cni", "program of the plugin; reference plugins may be in the same folder")
	f.StringVar(&o.install.BinDir, "bin-dir", "/opt/cni/bin", "folder of CNI plugins")
	f.StringVar(&o.install.ConfDir, "conf-dir", "/etc/cni/net.d", "folder of CNI configurations")
	f.StringVar(&o.install.Socket, "socket", api.DefaultSocket, "the daemon's API socket")
	f.StringVar(&o.guard, "guard", string(api.GuardPods), "what pods without an annotation may send: as \"weft up --guard\"")
	f.StringVar(&o.runDir, "run-dir", "/run/weft", "folder for the socket that the plugin connects to")
	f.StringVar(&o.httpAddr, "http-addr", "127.0.0.1:6781", "address of health checks and metrics")
	f.StringVar(&o.caFile, "identity-ca", defaultCAFile, "file with the CAs that nodes trust, if they have signed identities")
	return cmd
}

// collectAt is the growth of the heap at which garbage is collected, in percent of what is in use. Most of it is the cluster, which
// changes little: collecting more often costs little time, and saves a quarter of the memory.
const collectAt = 50

func runAgent(ctx context.Context, o *runOptions) error {
	log := newLog()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectAt)
	}
	client, dyn, err := o.clients()
	if err != nil {
		return err
	}
	mode, err := api.ParseGuardMode(o.guard)
	if err != nil {
		return hint.Refuse("--guard", "Choose pods, host or off.", "%q is unknown", o.guard)
	}
	o.install.Guard = mode
	if err := os.MkdirAll(o.kubeDir(), 0o700); err != nil {
		return fmt.Errorf("--state-dir: %w", err)
	}
	filter, err := firewall.New(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = filter.Close() }()
	release, err := filelock.Acquire(ctx, filepath.Join(o.runDir, "kube.lock"))
	if err != nil {
		return fmt.Errorf("--run-dir: %w", err)
	}
	defer release()
	o.install.Policy = filepath.Join(o.runDir, "kube.sock")
	admission, err := unixsocket.Listen(ctx, o.install.Policy)
	if err != nil {
		return fmt.Errorf("--run-dir: %w", err)
	}
	var lc net.ListenConfig
	health, err := lc.Listen(ctx, "tcp", o.httpAddr)
	if err != nil {
		return errors.Join(fmt.Errorf("--http-addr: %w", err), admission.Close())
	}
	agent, err := kube.New(kube.Config{
		Node: o.node, StateDir: o.kubeDir(), RunDir: o.runDir, Install: &o.install,
		Admission: admission, Health: health, API: client, Dynamic: dyn, Daemon: api.NewClient(o.install.Socket),
		Filter: filter, FilterChanges: filter, Links: kube.HostLinks{},
		Bridged: bridgenf.Keeper{PortPrefix: podlink.HostPrefix, Dir: bridgenf.Settings},
		DropLog: firewall.NFLog{}, Answers: firewall.NFLog{}, Connections: firewall.Conntrack{}, Log: log,
		Identities: &kube.Identities{API: client, Node: o.node, File: kube.IdentityFile(o.stateDir), CAFile: o.caFile, Log: log},
	})
	if err != nil {
		return err
	}
	log.Info("weft-kube started", "node", o.node)
	if err := agent.Run(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}
