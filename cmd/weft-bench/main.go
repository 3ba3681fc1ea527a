// Command weft-bench shows and measures weft on one machine.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"weft/bench/probe"
	"weft/internal/usage"
)

func main() {
	probe.Child()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(usage.Exit(os.Stderr, "weft-bench", newRootCommand().ExecuteContext(ctx)))
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "weft-bench",
		Short: "Show and measure weft on one machine",
	}
	root.AddCommand(newDemoCommand(), newRunCommand(), newListCommand(), newReportCommand(), newScaleCommand(),
		newKubernetesCommand())
	usage.Prepare(root)
	return root
}
