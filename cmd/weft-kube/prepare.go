package main

import (
	"cmp"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/hint"
	"weft/internal/kube"
	"weft/internal/usage"
)

func newPrepareCommand() *cobra.Command {
	var o clusterOptions
	var ranges []string
	var identities, caFile string
	p := kube.Prepare{}
	cmd := &cobra.Command{
		Use:   "prepare",
		Short: "Set the kernel's network settings and write the daemon's configuration, before the daemon starts",
		Long: "Set the kernel's network settings and write the daemon's configuration, before the daemon starts. The command\n" +
			"makes the host a router, passes bridged frames to its firewall, counts the nodes of the cluster for --init-peers\n" +
			"and writes kube.yaml into the state directory. It refuses a node without a secret, unless --plain or\n" +
			"--identities is set. With --identities it requests a certificate for the node and waits for the signer\n" +
			"(\"weft-kube signer\").",
		Args: usage.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, _, err := o.clients()
			if err != nil {
				return err
			}
			for _, r := range ranges {
				prefix, err := netip.ParsePrefix(strings.TrimSpace(r))
				if err != nil {
					return hint.Refuse("--range", "Use an address and a prefix length, such as 10.32.0.0/12.", "%q is not a CIDR", r)
				}
				p.Ranges = append(p.Ranges, prefix)
			}
			p.API, p.Node, p.Log = api, o.node, newLog()
			p.ConfigFile = filepath.Join(o.stateDir, "kube.yaml")
			signed, err := strconv.ParseBool(identities)
			if err != nil {
				return hint.Refuse("--identities", "Write true or false.", "%q is neither", identities)
			}
			if signed {
				p.Identities = &kube.Identities{
					API: api, Node: o.node, File: kube.IdentityFile(o.stateDir), CAFile: caFile, Log: p.Log,
				}
			}
			return p.Run(cmd.Context())
		},
	}
	o.addFlags(cmd.Flags())
	cmd.Flags().StringVar(&p.SecretFile, "secret-file", "/etc/weft/secret", "the daemon's secret file, from a Secret")
	plain, _ := strconv.ParseBool(os.Getenv("WEFT_PLAIN")) // another value does not turn encryption off
	cmd.Flags().BoolVar(&p.Plain, "plain", plain, "nodes communicate without encryption; without this flag a node without a secret is "+
		"refused (default: $WEFT_PLAIN)")
	cmd.Flags().StringVar(&identities, "identities", cmp.Or(os.Getenv("WEFT_IDENTITIES"), "false"),
		"true: the node gets a signed identity from the signer weft.network/node (default: $WEFT_IDENTITIES, else false)")
	cmd.Flags().StringVar(&caFile, "identity-ca", defaultCAFile, "file with the CAs that nodes trust, from a ConfigMap")
	cmd.Flags().DurationVar(&p.IdentityTimeout, "identity-timeout", 2*time.Minute, "maximum time to wait for the signature")
	cmd.Flags().DurationVar(&p.Timeout, "timeout", 30*time.Second, "maximum time to wait for the API server")
	cmd.Flags().StringSliceVar(&ranges, "range", strings.Split(cmp.Or(os.Getenv("WEFT_RANGE"), "10.32.0.0/12"), ","),
		"address ranges of the pods (default: $WEFT_RANGE, if it is set)")
	return cmd
}
