package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weft/internal/api"
	"weft/internal/daemon"
)

var errDoctor = errors.New("a node would not run as it is, or carry nothing")

func newDoctorCommand(e *env) *cobra.Command {
	o := &upOptions{}
	cmd := e.addJSONFlag(&cobra.Command{
		Use:                   "doctor [flags of up] [PEER...]",
		DisableFlagsInUseLine: true,
		Short:                 "Check what a node needs of this host, and say how to mend what is missing",
		Long: "Check what a node needs of this host: a line a check, and the mend where something is wrong. Nothing is\n" +
			"changed. Give it the flags of \"weft up\", or the same --config; without any of these it asks the node that runs\n" +
			"here, which looks with its own settings and rights. Beside a running node it leaves out what that node holds.\n" +
			"Exit code 1 where a node would not run.",
		Example: "  weft doctor\n  weft doctor --config /etc/weft/weft.yaml host1",
		Args:    between(0, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Peers = args
			ask := bare(cmd.Flags(), args) // before the environment, which a container has in common with its node, sets flags
			if err := o.evaluate(cmd.Flags()); err != nil {
				return err
			}
			checks := look(cmd.Context(), o.Config, ask)
			if err := e.show(checks, func(w io.Writer) { writeChecks(w, checks) }); err != nil {
				return err
			}
			for _, c := range checks {
				if c.Result == api.CheckFail {
					return errDoctor
				}
			}
			return nil
		},
	})
	o.addFlags(cmd.Flags())
	return cmd
}

// bare reports whether a command line says nothing of how a node is to run.
func bare(flags *pflag.FlagSet, args []string) bool {
	said := len(args) > 0
	flags.Visit(func(f *pflag.Flag) { said = said || f.Name != "json" && f.Name != "socket" })
	return !said
}

// look returns what the node that runs here finds, where it is to be asked and answers, else what is found for cfg.
func look(ctx context.Context, cfg daemon.Config, ask bool) []api.Check {
	if ask {
		if checks, err := api.NewClient(cfg.Socket).Checks(ctx); err == nil {
			daemon.Complete(checks)
			return checks
		}
	}
	return daemon.Doctor(ctx, cfg)
}

func writeChecks(w io.Writer, checks []api.Check) {
	for _, c := range checks {
		line := fmt.Sprintf("%-7s %-11s %s", c.Result, c.Name, c.Detail)
		if c.Remedy != "" {
			line += ". Mend: " + c.Remedy
		}
		_, _ = fmt.Fprintln(w, line)
	}
}

func newReportCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "report",
		Short: "Print all that a bug report needs as one JSON document, secrets left out",
		Long: "Print all that a bug report needs as one JSON document: what all read commands show, the checks of \"weft\n" +
			"doctor\", flags, links and routes of the host, metrics, the latest lines of the log. Secrets, keys and the\n" +
			"contents of frames are not in it; names and addresses are.",
		Example: "  weft report > report.json",
		Args:    between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := e.client().Report(cmd.Context())
			if err != nil {
				return err
			}
			e.json = true
			return e.show(r, nil)
		},
	}
}
