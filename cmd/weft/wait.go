package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/api"
)

func newWaitCommand(e *env) *cobra.Command {
	var what string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:                   "wait [--for ready|ipam|peers=N] [--timeout 30s]",
		DisableFlagsInUseLine: true,
		Short:                 "Block until the node is ready, addresses can be had, or N nodes are alive (this one counts)",
		Long: "Block until the node is ready, addresses can be had, or N nodes are alive:\n\n" +
			"ready: a pod could join now. ipam: the range is divided and this node has a share of it; a node that was told\n" +
			"of nobody, and would wait for its first pod, divides it now. peers=N: N nodes are alive, this one among them.\n\n" +
			"At the timeout the exit code is 1, and what is missing is said.",
		Example: "  weft wait --timeout 60s\n  weft wait --for peers=3",
		Args:    between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			result, err := e.client().Wait(cmd.Context(), what, timeout)
			if err != nil {
				return err
			}
			if !result.Done {
				return fmt.Errorf("not within %v: %s", timeout, result.Missing)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&what, "for", api.WaitReady, "`what` to wait for: ready, ipam or peers=N")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait at most")
	return cmd
}
