package main

import (
	"context"
	"io"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/usage"
)

// version is set by the linker (-X); with "go build" alone it is empty, and buildVersion uses the build information.
var version = ""

// env is shared by all commands: the output streams, and how to reach the daemon.
type env struct {
	stdout, stderr io.Writer
	socket         string
	json           bool
	patience       time.Duration // of --wait
}

// defaultPatience is how long commands wait for a node that is still starting.
const defaultPatience = 10 * time.Second

// client returns a client for the daemon that --socket selects, with the patience of --wait.
func (e *env) client() *api.Client { return api.NewClient(e.socket).WithPatience(e.patience) }

// run executes a command line, prints its error to stderr and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	e := &env{stdout: stdout, stderr: stderr}
	root := newRootCommand(e)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return usage.Exit(stderr, "weft", root.ExecuteContext(ctx))
}

// extraCommands are constructors of commands that exist only in builds with a tag, such as the one in man.go.
var extraCommands []func(e *env) *cobra.Command

func newRootCommand(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:     "weft",
		Short:   "A network for pods and hosts that needs only UDP between the hosts",
		Version: buildVersion(),
	}
	root.SetVersionTemplate("weft {{.Version}}\n") // as "weft version"
	root.PersistentFlags().StringVar(&e.socket, "socket", "",
		"`path` of the daemon's API socket (default "+api.DefaultSocket+", or $"+api.SocketEnv+")")
	root.PersistentFlags().DurationVar(&e.patience, "wait", defaultPatience, "maximum `time` to wait for a node that is still starting")
	root.AddCommand(
		newUpCommand(e), newStatusCommand(e), newWaitCommand(e), newPeersCommand(e),
		newConnectCommand(e), newForgetCommand(e), newIPAMCommand(e), newIPCommand(e),
		newAttachCommand(e), newDetachCommand(e), newExposeCommand(e), newHideCommand(e),
		newFDBCommand(e), newRoutesCommand(e), newLeaveCommand(e), newReclaimCommand(e), newVersionCommand(e),
		newSecretCommand(e), newReloadCommand(e), newCaptureCommand(e), newTopCommand(e), newDoctorCommand(e), newReportCommand(e),
		newDNSCommand(e), newCACommand(e), newIdentityCommand(e), newRevokeCommand(e),
	)
	for _, newCommand := range extraCommands {
		root.AddCommand(newCommand(e))
	}
	root.InitDefaultCompletionCmd()
	usage.Prepare(root)
	return root
}

// buildVersion returns the version that the linker set, else the version in the build information.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
