package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/kube"
)

// installOptions are the flags of "weft-kube install".
type installOptions struct {
	plugin, binDir, confDir, socket string
	timeout                         time.Duration
}

func newInstallCommand() *cobra.Command {
	var o installOptions
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install the CNI plugin, and its configuration when the daemon is ready for pods",
		Long: "Install the CNI plugin, and its configuration when the daemon is ready for pods. This command is for container\n" +
			"runtimes without Kubernetes; in a cluster, \"weft-kube run\" installs both.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runInstall(cmd, o) },
	}
	cmd.Flags().StringVar(&o.plugin, "plugin", "weft-cni", "program of the plugin")
	cmd.Flags().StringVar(&o.binDir, "bin-dir", "/opt/cni/bin", "folder of CNI plugins")
	cmd.Flags().StringVar(&o.confDir, "conf-dir", "/etc/cni/net.d", "folder of CNI configurations")
	cmd.Flags().StringVar(&o.socket, "socket", api.DefaultSocket, "the daemon's API socket")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 5*time.Minute, "maximum time to wait for the daemon")
	return cmd
}

func runInstall(cmd *cobra.Command, o installOptions) error {
	install := &kube.Install{Plugin: o.plugin, BinDir: o.binDir, ConfDir: o.confDir, Socket: o.socket}
	if _, err := install.Plugins(); err != nil {
		return err
	}
	result, err := api.NewClient(o.socket).Wait(cmd.Context(), api.WaitReady, o.timeout)
	if err != nil {
		return err
	}
	if !result.Done {
		return fmt.Errorf("the daemon is not ready after %v: %s", o.timeout, result.Missing)
	}
	_, err = install.Configuration()
	return err
}
