package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/kube"
	"weft/internal/usage"
)

// installOptions are the flags of "weft-kube install".
type installOptions struct {
	plugin, binDir, confDir, socket string
	names                           bool
	timeout                         time.Duration
}

func newInstallCommand() *cobra.Command {
	var o installOptions
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install the CNI plugin, and its configuration when the daemon is ready for pods",
		Long: "Install the CNI plugin, and its configuration when the daemon is ready for pods. This command is for container\n" +
			"runtimes without Kubernetes; in a cluster, \"weft-kube run\" installs both.",
		Args: usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return runInstall(cmd, o) },
	}
	cmd.Flags().StringVar(&o.plugin, "plugin", "", "program of the plugin (default: weft-cni beside this program, else in $PATH)")
	cmd.Flags().StringVar(&o.binDir, "bin-dir", "/opt/cni/bin", "folder of CNI plugins")
	cmd.Flags().StringVar(&o.confDir, "conf-dir", "/etc/cni/net.d", "folder of CNI configurations")
	cmd.Flags().StringVar(&o.socket, "socket", api.DefaultSocket, "the daemon's API socket")
	cmd.Flags().BoolVar(&o.names, "names", false, "give containers a name in the overlay, and the name server of their node")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 5*time.Minute, "maximum time to wait for the daemon")
	return cmd
}

func runInstall(cmd *cobra.Command, o installOptions) error {
	plugin, err := findPlugin(o.plugin)
	if err != nil {
		return err
	}
	for _, dir := range []string{o.binDir, o.confDir} { // hosts without a container runtime lack them
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	install := &kube.Install{Plugin: plugin, BinDir: o.binDir, ConfDir: o.confDir, Socket: o.socket, Names: o.names}
	if _, err := install.Plugins(); err != nil {
		return err
	}
	result, err := api.NewClient(o.socket).Wait(cmd.Context(), api.WaitReady, o.timeout)
	if err != nil {
		return err
	}
	if !result.Done {
		return hint.New(hint.Timeout, "\"weft status\" shows what is missing.", "the daemon is not ready after %v: %s", o.timeout, result.Missing)
	}
	_, err = install.Configuration()
	return err
}

// findPlugin returns the path of the plugin: path itself unless it is empty. The error is a *hint.Error.
func findPlugin(path string) (string, error) {
	const name = "weft-cni"
	if path != "" {
		return path, nil
	}
	if self, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(self), name); isFile(beside) {
			return beside, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", hint.New(hint.Refused, "Install it there, or name it with --plugin.", "no program %s beside weft-kube or in $PATH", name)
	}
	return path, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
