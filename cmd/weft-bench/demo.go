package main

import (
	"github.com/spf13/cobra"

	"weft/bench/demo"
)

func newDemoCommand() *cobra.Command {
	var cfg demo.Config
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Three nodes with pods in network namespaces: ping, status, throughput; needs root",
		Long: "Start three nodes with pods in network namespaces of this machine, ping between them, show what \"weft status\"\n" +
			"says and measure throughput; everything is removed again. Needs root.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Out = cmd.OutOrStdout()
			return demo.Run(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVar(&cfg.Bin, "bin", "bin", "folder with the weft programs")
	cmd.Flags().IntVar(&cfg.Seconds, "seconds", 5, "how long each throughput measurement takes")
	return cmd
}
