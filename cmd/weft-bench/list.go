package main

import (
	"github.com/spf13/cobra"

	"weft/bench/harness"
	"weft/internal/usage"
)

func newListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the drivers, loads and settings",
		Args:  usage.Arguments(0, 0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return harness.List(cmd.OutOrStdout()) },
	}
}
