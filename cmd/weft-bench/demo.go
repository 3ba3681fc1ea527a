package main

import (
	"github.com/spf13/cobra"

	"weft/bench/demo"
	"weft/internal/usage"
)

func newDemoCommand() *cobra.Command {
	var cfg demo.Config
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run three nodes with pods in network namespaces: ping, status, throughput; needs root",
		Long: "Run three nodes with pods in network namespaces of this machine, ping between the pods, show the output of\n" +
			"\"weft status\" and measure throughput. Everything is removed at the end. Needs root.",
		Args: usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Out = cmd.OutOrStdout()
			return demo.Run(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVar(&cfg.Bin, "bin", "bin", "folder with the weft programs")
	cmd.Flags().IntVar(&cfg.Seconds, "seconds", 5, "duration of each throughput measurement")
	return cmd
}
