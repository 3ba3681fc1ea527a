package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/kube"
)

func newPrepareCommand() *cobra.Command {
	var o clusterOptions
	var timeout time.Duration
	var ranges []string
	p := kube.Prepare{}
	cmd := &cobra.Command{
		Use:   "prepare",
		Short: "Set the kernel's network settings and write the daemon's configuration, before the daemon starts",
		Long: "Set the kernel's network settings and write the daemon's configuration, before the daemon starts. The command\n" +
			"makes the host a router, passes bridged frames to its firewall, counts the nodes of the cluster for --init-peers\n" +
			"and writes kube.yaml into the state directory.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, _, err := o.clients()
			if err != nil {
				return err
			}
			for _, r := range ranges {
				prefix, err := netip.ParsePrefix(strings.TrimSpace(r))
				if err != nil {
					return fmt.Errorf("--range: %q is not a CIDR", r)
				}
				p.Ranges = append(p.Ranges, prefix)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			p.API, p.Node, p.SecretFile, p.Log = api, o.node, o.secretFile, newLog()
			p.ConfigFile = filepath.Join(o.stateDir, "kube.yaml")
			return p.Run(ctx)
		},
	}
	o.addFlags(cmd.Flags())
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "maximum time to wait for the API server")
	cmd.Flags().StringSliceVar(&ranges, "range", strings.Split(cmp.Or(os.Getenv("WEFT_RANGE"), "10.32.0.0/12"), ","),
		"address ranges of the pods (default: $WEFT_RANGE, if it is set)")
	return cmd
}
