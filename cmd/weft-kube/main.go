// Command weft-kube connects the daemon of a node to Kubernetes: it installs the CNI plugin, gives the daemon its
// peers, reclaims the address space of deleted nodes and enforces network policies; see package internal/kube.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"weft/internal/hint"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newRootCommand().ExecuteContext(ctx); err != nil {
		advice, code := hint.Of(err)
		if advice != "" {
			advice = "; hint: " + advice
		}
		fmt.Fprintf(os.Stderr, "weft-kube: %v%s\n", err, advice)
		os.Exit(code)
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "weft-kube",
		Short:         "Connect the weft daemon of a node to Kubernetes",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newInstallCommand(), newPrepareCommand(), newRunCommand(), newSignerCommand(), newUninstallCommand())
	return root
}
