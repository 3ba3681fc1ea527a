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
			"CPU: at their start, at rest, while nodes restart, and around a partition. The control planes of all nodes run in\n" +
			"this process in virtual time, without their datapaths. It fails if an address is leased twice, or a lease is lost.",
		Args: usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			results, err := scale.Run(cmd.Context(), o, cmd.OutOrStdout())
			if err != nil || doc == "" {
				return err
			}
			return scale.WriteDoc(results, doc)
		},
	}
	cmd.Flags().IntSliceVar(&o.Nodes, "nodes", []int{10, 100, 500, 1000}, "sizes of the networks")
	cmd.Flags().DurationVar(&o.Idle, "idle", time.Minute, "how long to measure an idle network, in virtual time")
	cmd.Flags().DurationVar(&o.Limit, "limit", 5*time.Minute, "maximum virtual time until a network has one view after a change")
	cmd.Flags().DurationVar(&o.Latency, "latency", time.Millisecond, "least latency of a message, in one direction")
	cmd.Flags().DurationVar(&o.Jitter, "jitter", time.Millisecond, "random latency that is added, at most")
	cmd.Flags().Float64Var(&o.Loss, "loss", 0, "share of packets, and of segments of streams, that the network loses, from 0 to 1")
	cmd.Flags().Uint64Var(&o.Seed, "seed", 1, "seed of the random decisions of the network and of the measurement")
	cmd.Flags().StringVar(&o.Profiles, "profiles", "", "folder for CPU profiles of each phase, and heap profiles (go tool pprof)")
	cmd.Flags().StringVar(&doc, "doc", "", "write the results to the section on scale of this page, with a plot in a folder beside the page")
	return cmd
}
