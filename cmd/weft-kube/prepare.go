package main

import (
	"context"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/kube"
)

func newPrepareCommand() *cobra.Command {
	var o clusterOptions
	var timeout time.Duration
	p := kube.Prepare{}
	cmd := &cobra.Command{
		Use:   "prepare",
		Short: "Set the kernel's network settings and write the daemon's configuration, before it starts",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, _, err := o.clients()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			p.API, p.Node, p.SecretFile, p.Log = api, o.node, o.secretFile, newLog()
			p.ConfigFile = filepath.Join(o.stateDir, "kube.yaml")
			return p.Run(ctx)
		},
	}
	o.addFlags(cmd.Flags())
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait for the API server")
	cmd.Flags().BoolVar(&p.IPv4, "ipv4", true, "make the host a router for IPv4")
	cmd.Flags().BoolVar(&p.IPv6, "ipv6", false, "make the host a router for IPv6")
	return cmd
}
