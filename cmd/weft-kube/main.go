// Command weft-kube is what a Kubernetes node needs beside the daemon.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newRootCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "weft-kube: %v\n", err)
		os.Exit(1)
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "weft-kube",
		Short:         "What a Kubernetes node needs beside the weft daemon",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newInstallCommand(), newPrepareCommand(), newRunCommand(), newUninstallCommand())
	return root
}
