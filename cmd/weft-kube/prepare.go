package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
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
			"and writes kube.yaml into the state directory. It refuses a node without a secret, unless --plain is set.",
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
			p.API, p.Node, p.Log = api, o.node, newLog()
			p.ConfigFile = filepath.Join(o.stateDir, "kube.yaml")
			return p.Run(ctx)
		},
	}
	o.addFlags(cmd.Flags())
	cmd.Flags().StringVar(&p.SecretFile, "secret-file", "/etc/weft/secret", "the daemon's secret file, from a Secret")
	plain, _ := strconv.ParseBool(os.Getenv("WEFT_PLAIN")) // another value does not turn encryption off
	cmd.Flags().BoolVar(&p.Plain, "plain", plain, "nodes communicate without encryption; without this flag a node without a secret is "+
		"refused (default: $WEFT_PLAIN)")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "maximum time to wait for the API server")
	cmd.Flags().StringSliceVar(&ranges, "range", strings.Split(cmp.Or(os.Getenv("WEFT_RANGE"), "10.32.0.0/12"), ","),
		"address ranges of the pods (default: $WEFT_RANGE, if it is set)")
	return cmd
}
