// Command weft-kube connects the daemon of a node to Kubernetes: it installs the CNI plugin, gives the daemon its
// peers, reclaims the address space of deleted nodes and enforces network policies; see package internal/kube.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"weft/internal/usage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(usage.Exit(os.Stderr, "weft-kube", newRootCommand().ExecuteContext(ctx)))
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "weft-kube",
		Short: "Connect the weft daemon of a node to Kubernetes",
	}
	root.AddCommand(newInstallCommand(), newPrepareCommand(), newRemoveCommand(), newRunCommand(), newSignerCommand(), newUninstallCommand())
	usage.Prepare(root)
	return root
}
