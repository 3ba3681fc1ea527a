package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"weft/internal/kube"
	"weft/internal/kube/firewall"
	"weft/internal/plural"
	"weft/internal/teardown"
	"weft/internal/usage"
)

// uninstallOptions are the flags of "weft-kube uninstall".
type uninstallOptions struct {
	install                       kube.Install
	host                          bool
	stateDir, runDir, messageFile string
}

func newUninstallCommand() *cobra.Command {
	var o uninstallOptions
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove the CNI configuration, the plugin and the rules of network policies from this host",
		Long: "Remove the CNI configuration, the plugin and the rules of network policies from this host. These stay when the\n" +
			"DaemonSet is deleted, so that pods can still be deleted. Run \"weft leave\" first, and this command after all pods\n" +
			"are deleted.\n\n" +
			"With --host it also removes what a daemon that was stopped without \"weft leave\" left on the host: links of pods,\n" +
			"devices, routes, rules, the bridge, changed kernel settings, copies of reference plugins, and the state directory\n" +
			"with the key and the addresses of the node. In a cluster \"weft-kube remove\" does this on each node.",
		Args: usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.host {
				return uninstallHost(cmd.Context(), &o)
			}
			filter, err := firewall.New(cmd.Context())
			if err == nil {
				err = errors.Join(filter.Remove(cmd.Context()), filter.Close())
			}
			return errors.Join(err, o.install.Remove())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.install.BinDir, "bin-dir", "/opt/cni/bin", "folder of CNI plugins")
	f.StringVar(&o.install.ConfDir, "conf-dir", "/etc/cni/net.d", "folder of CNI configurations")
	f.StringVar(&o.install.Plugin, "plugin", "/usr/bin/weft-cni", "with --host: program of the plugin, beside which the reference plugins are")
	f.BoolVar(&o.host, "host", false, "remove everything of weft from this host, for good")
	f.StringVar(&o.stateDir, "state-dir", "/var/lib/weft", "with --host: the daemon's state directory, which is removed")
	f.StringVar(&o.runDir, "run-dir", "/run/weft", "with --host: the folder of the sockets, which is removed")
	f.StringVar(&o.messageFile, "message-file", "", "with --host: file for notes to an operator, such as /dev/termination-log of a pod")
	return cmd
}

// uninstallHost removes everything of weft from this host. First the runtime stops adding pods; the state directory, which has what a
// second attempt needs, is last.
func uninstallHost(ctx context.Context, o *uninstallOptions) error {
	log := newLog()
	if err := kube.RefuseRunning(o.runDir + "/weft.sock"); err != nil {
		return err
	}
	err := errors.Join(o.install.Remove(), o.install.RemoveReferences())
	report, hostErr := teardown.Host(ctx)
	if err = errors.Join(err, hostErr, kube.RestoreSettings(o.stateDir, log)); err == nil {
		err = errors.Join(kube.RemoveFolder(o.runDir), kube.RemoveStateDir(o.stateDir))
	}
	var message []string
	if report.Pods > 0 {
		message = append(message, plural.Count(report.Pods, "pod")+" lost the network, and must be deleted")
	}
	for _, name := range report.Kept {
		message = append(message, fmt.Sprintf("the bridge %s stays, because another program has ports on it", name))
	}
	if err != nil {
		message = append(message, err.Error())
	}
	if len(message) > 0 && o.messageFile != "" {
		err = errors.Join(err, os.WriteFile(o.messageFile, []byte(strings.Join(message, "; ")), 0o600))
	}
	log.Info("weft has been removed from this host", "complete", err == nil, "notes", message)
	return err
}
