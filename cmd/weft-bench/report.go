package main

import (
	"github.com/spf13/cobra"

	"weft/bench/harness"
	"weft/bench/report"
	"weft/internal/usage"
)

func newReportCommand() *cobra.Command {
	var o report.Options
	var gateFile string
	cmd := &cobra.Command{
		Use:   "report RESULTS.json",
		Short: "Render the report of an earlier run again",
		Args:  usage.Arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := report.Render(args[0], o, cmd.OutOrStdout()); err != nil || gateFile == "" {
				return err
			}
			return harness.WriteGate(args[0], gateFile)
		},
	}
	cmd.Flags().BoolVar(&o.Markdown, "markdown", false, "only print the report, with links to its pictures")
	cmd.Flags().StringVar(&o.Out, "out", "", "folder to write to (default: the folder of the results)")
	cmd.Flags().StringVar(&o.Doc, "doc", "", "also write the report to this page, with its pictures in a folder beside the page")
	cmd.Flags().StringVar(&gateFile, "gate-write", "", "also write the steady ratios of the run to this file, for run --gate")
	return cmd
}
