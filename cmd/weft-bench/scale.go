package main

import (
	"time"

	"github.com/spf13/cobra"

	"weft/bench/scale"
)

func newScaleCommand() *cobra.Command {
	var o scale.Options
	var doc string
	cmd := &cobra.Command{
		Use:   "scale",
		Short: "Measure what mesh and address space cost a node as networks grow",
		Long: "Measure how long networks of different sizes take to come together, and what gossip, memory and CPU they cost\n" +
			"each node, with all nodes but their data planes in this process.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			results, err := scale.Run(cmd.Context(), o, cmd.OutOrStdout())
			if err != nil || doc == "" {
				return err
			}
			return scale.WriteDoc(results, doc)
		},
	}
	cmd.Flags().IntSliceVar(&o.Nodes, "nodes", []int{10, 50, 200, 500}, "sizes of the networks")
	cmd.Flags().DurationVar(&o.Idle, "idle", time.Minute, "how long the gossip of an idle network is counted")
	cmd.Flags().DurationVar(&o.Limit, "limit", 5*time.Minute, "how long a network may take to come together, from the start of its last node")
	cmd.Flags().DurationVar(&o.Every, "every", 250*time.Millisecond, "how long after one node the next is started")
	cmd.Flags().StringVar(&doc, "doc", "", "write the results into this page, as its section on scale, with a plot in a folder beside it")
	return cmd
}
