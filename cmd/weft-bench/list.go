package main

import (
	"github.com/spf13/cobra"

	"weft/bench/harness"
)

func newListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the drivers and loads",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return harness.List(cmd.OutOrStdout()) },
	}
}
