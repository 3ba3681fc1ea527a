package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"weft/internal/secret"
	"weft/internal/usage"
)

func newSecretCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret",
		Short: "Generate secrets for --secret-file",
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "generate",
		Short: "Print a new secret, a line for the --secret-file of every node",
		Long: "Print a new secret, a line for the --secret-file of every node. To replace a secret without an outage, insert the\n" +
			"new line before the old one and run \"weft reload\", on every node. Then remove the old line and reload again, on\n" +
			"every node.",
		Example: "  (umask 077; weft secret generate > /etc/weft/secret)",
		Args:    usage.Arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(e.stdout, secret.Generate())
			return err
		},
	})
	return cmd
}
