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
		Short: "Set the kernel's network settings and write the daemon's configuration, before it starts",
		Long: "Set the kernel's network settings and write the daemon's configuration, before it starts: makes the host a\n" +
			"router, has bridged frames shown to its firewall, counts the nodes of the cluster for --init-peers and writes\n" +
			"kube.yaml into the state directory.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, _, err := o.clients()
			if err != nil {
				return err
			}
			for _, r := range ranges {
				prefix, err := netip.ParsePrefix(strings.TrimSpace(r))
				if err != nil {
					return fmt.Errorf("--range: %q is no CIDR", r)
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
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait for the API server")
	cmd.Flags().StringSliceVar(&ranges, "range", strings.Split(cmp.Or(os.Getenv("WEFT_RANGE"), "10.32.0.0/12"), ","), "ranges of the pods (default: $WEFT_RANGE, if it is set)")
	return cmd
}
