package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/usage"
)

func newWaitCommand(e *env) *cobra.Command {
	var what string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:                   "wait [--for ready|ipam|peers=N] [--timeout 30s]",
		DisableFlagsInUseLine: true,
		Short:                 "Block until the node is ready, addresses can be leased, or N nodes are alive",
		Long: "Block until the node is ready, addresses can be leased, or N nodes are alive:\n\n" +
			"ready: a pod can join now. ipam: the range is divided and this node has a share of it. A node without peers\n" +
			"normally divides the range for its first pod; with this command it divides the range immediately. peers=N: N\n" +
			"nodes are alive, including this node.\n\n" +
			"At the timeout the command prints what is missing, and the exit code is 1.",
		Example: "  weft wait --timeout 60s\n  weft wait --for peers=3",
		Args:    usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			result, err := e.client().Wait(cmd.Context(), what, timeout)
			if err != nil {
				return err
			}
			if !result.Done {
				return hint.New(hint.Timeout, waitAdvice(what), "not within %v: %s", timeout, result.Missing)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&what, "for", api.WaitReady, "`what` to wait for: ready, ipam or peers=N")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "maximum time to wait")
	return cmd
}

// waitAdvice returns which command shows more about a condition that does not hold.
func waitAdvice(what string) string {
	switch {
	case strings.HasPrefix(what, api.WaitPeers):
		return "\"weft peers\" shows the nodes, and \"weft status\" which targets are not reached."
	case what == api.WaitIPAM:
		return "\"weft ipam\" shows the owners, and \"weft status\" what is missing."
	}
	return "\"weft status\" shows what is missing."
}
