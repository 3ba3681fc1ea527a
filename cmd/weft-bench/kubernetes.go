package main

import (
	"time"

	"github.com/spf13/cobra"

	"weft/bench/kubernetes"
	"weft/internal/usage"
)

func newKubernetesCommand() *cobra.Command {
	var o kubernetes.Options
	var doc string
	cmd := &cobra.Command{
		Use:   "kubernetes PROGRAM...",
		Short: "Measure weft-kube in a large cluster",
		Long: "Measure weft-kube on one node of a large cluster: memory, CPU, and the time until the rules of a pod are in force.\n" +
			"The API server and the daemon are made up, nftables is that of the host. Each PROGRAM is a weft-kube; the first one\n" +
			"is the baseline of the ratios.",
		Args: usage.Arguments(1, 8),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Programs = args
			results, err := kubernetes.Run(cmd.Context(), o, cmd.OutOrStdout())
			if err != nil || doc == "" {
				return err
			}
			return kubernetes.WriteDoc(results, o, doc)
		},
	}
	cmd.Flags().StringVar(&o.Plugin, "plugin", "bin/weft-cni", "the CNI plugin")
	cmd.Flags().IntVar(&o.Nodes, "nodes", 5000, "nodes of the cluster")
	cmd.Flags().IntVar(&o.Pods, "pods", 50000, "pods of the cluster")
	cmd.Flags().IntVar(&o.Policies, "policies", 2000, "network policies of the cluster")
	cmd.Flags().IntVar(&o.Local, "local", 250, "pods of the measured node")
	cmd.Flags().IntVar(&o.Rounds, "rounds", 3, "how often each program is measured")
	cmd.Flags().IntVar(&o.Rate, "rate", 20, "changes of pods in the cluster each second")
	cmd.Flags().DurationVar(&o.Window, "window", 30*time.Second, "how long CPU time is measured")
	cmd.Flags().StringVar(&doc, "doc", "", "write the results to the section on Kubernetes of this page")
	return cmd
}
