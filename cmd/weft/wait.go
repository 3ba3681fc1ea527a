package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func newWaitCommand(e *env) *cobra.Command {
	var what string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait [--for ready|ipam|peers=N] [--timeout 30s]",
		Short: "Block until the node is ready, addresses can be had, or N nodes are alive (this one counts)",
		Args:  between(0, 0),
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
	cmd.Flags().StringVar(&what, "for", "ready", "ready, ipam or peers=N")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait")
	return cmd
}
