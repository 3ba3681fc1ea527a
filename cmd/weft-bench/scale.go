package main

import (
	"time"

	"github.com/spf13/cobra"

	"weft/bench/scale"
	"weft/internal/usage"
)

func newScaleCommand() *cobra.Command {
	var o scale.Options
	var doc string
	cmd := &cobra.Command{
		Use:   "scale",
		Short: "Measure the cost per node of mesh and address space in growing networks",
		Long: "Measure the time until networks of different sizes have formed, and their cost per node in gossip, memory and\n" +
			"CPU. All nodes run in this process, without their datapaths.",
		Args: usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			results, err := scale.Run(cmd.Context(), o, cmd.OutOrStdout())
			if err != nil || doc == "" {
				return err
			}
			return scale.WriteDoc(results, doc)
		},
	}
	cmd.Flags().IntSliceVar(&o.Nodes, "nodes", []int{10, 50, 200, 500}, "sizes of the networks")
	cmd.Flags().DurationVar(&o.Idle, "idle", time.Minute, "how long to count the gossip of an idle network")
	cmd.Flags().DurationVar(&o.Limit, "limit", 5*time.Minute, "maximum time for a network to form after the start of its last node")
	cmd.Flags().DurationVar(&o.Every, "every", 250*time.Millisecond, "time between the starts of two nodes")
	cmd.Flags().StringVar(&doc, "doc", "", "write the results to the section on scale of this page, with a plot in a folder beside the page")
	return cmd
}
