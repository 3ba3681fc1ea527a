package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"weft/internal/hint"
	"weft/internal/identity"
	"weft/internal/settings"
	"weft/internal/statedir"
	"weft/internal/usage"
	"weft/mesh"
)

func newIdentityCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "identity",
		Short: "Request an identity for this node",
	}
	cmd.AddCommand(newIdentityRequestCommand(e))
	return cmd
}

func newIdentityRequestCommand(e *env) *cobra.Command {
	var dir, name string
	cmd := &cobra.Command{
		Use:   "request",
		Short: "Print a request for a certificate, to be signed with \"weft ca sign\"",
		Long: "Print a request for a certificate, to be signed with \"weft ca sign\": a line with the public key of this node and\n" +
			"its name. The node may run. At its first start it has no key yet, and the command makes one.",
		Args: usage.Arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			if err := settings.CheckName(name); err != nil {
				return err
			}
			if err := statedir.Ensure(dir); err != nil {
				return err
			}
			key, err := mesh.LoadIdentity(dir)
			if err != nil {
				return hint.Refuse("--state-dir", "Name the state directory of the node.", "%w", err)
			}
			r := identity.Request{Public: key.Public, Name: name}
			if _, err := identity.ParseRequest(r.String()); err != nil {
				return hint.Refuse("--name", "Give the node a name of at most 64 bytes, here and for \"weft up\".", "%w", err)
			}
			_, err = fmt.Fprintln(e.stdout, r)
			return err
		},
	}
	host, _ := os.Hostname()
	cmd.Flags().StringVar(&dir, "state-dir", settings.DefaultStateDir, "`folder` of the node's state")
	cmd.Flags().StringVar(&name, "name", host, "`nickname` of the node, the same as that of \"weft up\"")
	cmd.Flags().Lookup("name").DefValue = "the host name"
	return cmd
}
