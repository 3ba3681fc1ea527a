package main

import (
	"errors"

	"github.com/spf13/cobra"

	"weft/internal/kube"
	"weft/internal/kube/firewall"
	"weft/internal/usage"
)

func newUninstallCommand() *cobra.Command {
	i := &kube.Install{}
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove the CNI configuration, the plugin and the rules of network policies from this host",
		Long: "Remove the CNI configuration, the plugin and the rules of network policies from this host. These stay when the\n" +
			"DaemonSet is deleted, so that pods can still be deleted. Run \"weft leave\" first, and this command after all pods\n" +
			"are deleted.",
		Args: usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := firewall.New(cmd.Context())
			if err == nil {
				err = filter.Remove(cmd.Context())
			}
			return errors.Join(err, i.Remove())
		},
	}
	cmd.Flags().StringVar(&i.BinDir, "bin-dir", "/opt/cni/bin", "folder of CNI plugins")
	cmd.Flags().StringVar(&i.ConfDir, "conf-dir", "/etc/cni/net.d", "folder of CNI configurations")
	return cmd
}
