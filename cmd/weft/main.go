// Command weft is the node daemon ("weft up") and all operator commands.
//
// Each command has a constructor newXCommand(e), which returns a *cobra.Command and is listed in newRootCommand. A file
// holds one command, or a few that belong together. The constructor has the texts, the flags and a short RunE; a longer
// body is a function runX, and the output for people is a function writeX(w, document). The commands share an env: the
// output streams, and a client for the socket of the daemon. A command with --json is wrapped by addJSONFlag and prints
// its document with env.show.
//
// Commands return errors and never exit or print them. run prints the error with its hint, and exits with the code
// of its kind; see package hint. A wrong argument is a *hint.Error of kind Usage (exit code 2).
//
// docs/COMMANDS.md and the manual pages are generated from the command tree. To update the page after a change of a text
// or flag, run "go test ./cmd/weft -run TestCommandsDoc -update".
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
