// Command weft-docker connects Docker to the daemon of this host: it is the network driver and the IPAM driver "weft"; see package
// internal/docker.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"weft/internal/usage"
)

// version is set by the linker.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(usage.Exit(os.Stderr, "weft-docker", newRootCommand().ExecuteContext(ctx)))
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:     "weft-docker",
		Short:   "Connect Docker to the weft daemon of this host",
		Version: version,
	}
	root.AddCommand(newServeCommand())
	usage.Prepare(root)
	return root
}
