package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/daemon"
	"weft/internal/settings"
)

// version is set by the linker (-X); with "go build" alone it is empty, and buildVersion uses the build information.
var version = ""

// Exit codes, which docs/COMMANDS.md promises.
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2
	exitNoDaemon = 3
)

// env is shared by all commands: the output streams, and how to reach the daemon.
type env struct {
	stdout, stderr io.Writer
	socket         string
	json           bool
}

// client returns a client for the daemon that --socket selects.
func (e *env) client() *api.Client { return api.NewClient(e.socket) }

// usageError is an error in the arguments or flags of a command, with a hint how to correct them.
type usageError struct {
	err  error
	hint string
}

func (u *usageError) Error() string { return u.err.Error() }

// run executes a command line, prints its error to stderr and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	e := &env{stdout: stdout, stderr: stderr}
	root := newRootCommand(e)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	code, hint := classify(err)
	separator := "\n"
	if code == exitUsage {
		separator = "; " // a refusal is one line
	}
	if hint != "" {
		hint = separator + "hint: " + hint
	}
	_, _ = fmt.Fprintf(stderr, "weft: %v%s\n", err, hint)
	return code
}

// classify returns the exit code for err and the mend where there is one.
func classify(err error) (code int, hint string) {
	if u, ok := errors.AsType[*usageError](err); ok {
		return exitUsage, u.hint
	}
	if r, ok := errors.AsType[*daemon.Refusal](err); ok {
		return exitUsage, r.Hint
	}
	if s, ok := errors.AsType[*settings.Error](err); ok {
		return exitUsage, "See \"weft up --help\" for what --" + s.Flag + " takes."
	}
	if errors.Is(err, settings.ErrFile) {
		return exitUsage, "The keys of the file are the flags of \"weft up\", without dashes before them."
	}
	if p, ok := errors.AsType[*api.Problem](err); ok {
		if p.Kind == api.KindInvalid {
			return exitUsage, p.Hint
		}
		return exitFailed, p.Hint
	}
	if errors.Is(err, api.ErrNoDaemon) {
		return exitNoDaemon, "Start it with \"weft up\", or name its socket with --socket or " + api.SocketEnv + "."
	}
	return exitFailed, ""
}

// extraCommands are constructors of commands that exist only in builds with a tag, such as the one in man.go.
var extraCommands []func(e *env) *cobra.Command

func newRootCommand(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:           "weft",
		Short:         "A network for pods and hosts that needs only UDP between the hosts",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          subcommandsOnly,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().StringVar(&e.socket, "socket", "",
		"`path` of the daemon's API socket (default "+api.DefaultSocket+", or $"+api.SocketEnv+")")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{err, "See \"" + cmd.CommandPath() + " --help\"."}
	})
	root.AddCommand(
		newUpCommand(e), newStatusCommand(e), newWaitCommand(e), newPeersCommand(e),
		newConnectCommand(e), newForgetCommand(e), newIPAMCommand(e), newIPCommand(e),
		newAttachCommand(e), newDetachCommand(e), newExposeCommand(e), newHideCommand(e),
		newFDBCommand(e), newRoutesCommand(e), newLeaveCommand(e), newReclaimCommand(e), newVersionCommand(e),
		newSecretCommand(e), newReloadCommand(e), newCaptureCommand(e), newDoctorCommand(e), newReportCommand(e), newDNSCommand(e),
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
	return &usageError{fmt.Errorf("unknown command %q", args[0]), "See \"" + cmd.CommandPath() + " --help\" for the commands."}
}

// between returns an Args function that accepts least to most arguments; most < 0 means no upper limit.
func between(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		return &usageError{
			fmt.Errorf("%s: wrong number of arguments: %d", cmd.CommandPath(), len(args)),
			"Usage: " + cmd.UseLine(),
		}
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
