package main

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/printable"
)

// version is set by the linker (-X); with "go build" alone it is empty, and buildVersion uses the build information.
var version = ""

// env is shared by all commands: the output streams, and how to reach the daemon.
type env struct {
	stdout, stderr io.Writer
	socket         string
	json           bool
}

// client returns a client for the daemon that --socket selects.
func (e *env) client() *api.Client { return api.NewClient(e.socket) }

// run executes a command line, prints its error to stderr and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	e := &env{stdout: stdout, stderr: stderr}
	root := newRootCommand(e)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return hint.ExitDone
	}
	advice, code := hint.Of(err)
	separator := "\n"
	if code == hint.ExitUsage {
		separator = "; " // a refusal is one line
	}
	if advice != "" {
		advice = separator + "hint: " + advice
	}
	_, _ = io.WriteString(stderr, printable.Lines(fmt.Sprintf("weft: %v%s\n", err, advice)))
	return code
}

// extraCommands are constructors of commands that exist only in builds with a tag, such as the one in man.go.
var extraCommands []func(e *env) *cobra.Command

func newRootCommand(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:           "weft",
		Short:         "A network for pods and hosts that needs only UDP between the hosts",
		Version:       buildVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          subcommandsOnly,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("weft {{.Version}}\n") // as "weft version"
	root.PersistentFlags().StringVar(&e.socket, "socket", "",
		"`path` of the daemon's API socket (default "+api.DefaultSocket+", or $"+api.SocketEnv+")")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return hint.New(hint.Usage, "See \""+cmd.CommandPath()+" --help\".", "%w", err)
	})
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
	return root
}

// subcommandsOnly is the Args function of a command that only groups other commands.
func subcommandsOnly(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return hint.New(hint.Usage, "See \""+cmd.CommandPath()+" --help\" for the commands.", "unknown command %q", args[0])
}

// between returns an Args function that accepts least to most arguments; most < 0 means no upper limit.
func between(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		return hint.New(hint.Usage, "Usage: "+cmd.UseLine(), "%s: wrong number of arguments: %d", cmd.CommandPath(), len(args))
	}
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
