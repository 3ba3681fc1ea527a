package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weft/internal/api"
	"weft/internal/doctor"
	"weft/internal/hint"
	"weft/internal/printable"
	"weft/internal/settings"
	"weft/internal/usage"
)

var errDoctor = errors.New("a node cannot start on this host, or cannot carry frames")

func newDoctorCommand(e *env) *cobra.Command {
	o := &upOptions{}
	var color string
	cmd := e.addJSONFlag(&cobra.Command{
		Use:                   "doctor [flags of up] [PEER...]",
		DisableFlagsInUseLine: true,
		Short:                 "Check that this host has what a node needs, and show how to fix what is missing",
		Long: "Check that this host has what a node needs. Doctor prints one line per check, with a fix for each problem, and\n" +
			"changes nothing. Use the flags of \"weft up\", or the same --config. Without any of these, doctor asks the node\n" +
			"that runs on this host, which checks with its own settings and privileges. While a node runs, checks of\n" +
			"resources that this node holds are skipped. The exit code is 1 if a node cannot run.",
		Example: "  weft doctor\n  weft doctor --config /etc/weft/weft.yaml host1",
		Args:    usage.Arguments(0, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Peers = args
			// This is before evaluate, which sets flags from the environment. A container shares its environment with the node.
			askNode := noNodeFlags(cmd.Flags(), args)
			if err := o.evaluate(cmd.Flags()); err != nil {
				return err
			}
			d, err := displayOf(e.stdout, color)
			if err != nil {
				return err
			}
			checks, err := runChecks(cmd.Context(), o.Config, askNode)
			if err != nil {
				return err
			}
			if err := e.showStyled(checks, func(w io.Writer) { writeChecks(w, checks, d) }); err != nil {
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
	completeModes(cmd)
	return addColorFlag(cmd, &color)
}

// otherFlags are flags that do not configure a node.
var otherFlags = []string{"json", "color", "socket", "wait"}

// noNodeFlags reports whether a command line has neither peers nor flags that configure a node.
func noNodeFlags(flags *pflag.FlagSet, args []string) bool {
	configured := len(args) > 0
	flags.Visit(func(f *pflag.Flag) {
		configured = configured || !slices.Contains(otherFlags, f.Name)
	})
	return !configured
}

// runChecks returns the checks of the node that runs on this host if askNode is set and the node answers; otherwise it
// checks the host for cfg itself, which only root can.
func runChecks(ctx context.Context, cfg settings.Config, askNode bool) ([]api.Check, error) {
	if askNode {
		if checks, err := api.NewClient(cfg.Socket).Checks(ctx); err == nil {
			doctor.Complete(checks)
			return checks, nil
		}
	}
	if !doctor.Privileged() {
		return nil, hint.New(hint.Refused, "Run \"sudo weft doctor\".", "weft doctor needs root: without it most checks cannot look at the host")
	}
	return doctor.Run(ctx, cfg), nil
}

// checkIndent is the column of the detail of a check.
const checkIndent = 20

// writeChecks writes a line per check, and on a terminal the fix and its commands on lines of their own. It makes the text printable.
func writeChecks(w io.Writer, checks []api.Check, d display) {
	for _, c := range checks {
		detail, remedy := printable.Text(c.Detail), printable.Text(c.Remedy)
		result := fmt.Sprintf("%-7s", printable.Text(string(c.Result)))
		head := d.paint(checkStyle(c.Result), result) + fmt.Sprintf(" %-11s ", printable.Text(c.Name))
		if d.width == 0 {
			if remedy != "" {
				detail += ". Fix: " + remedy
			}
			_, _ = fmt.Fprintf(w, "%s%s\n", head, detail)
			continue
		}
		indent := "\n" + strings.Repeat(" ", checkIndent)
		_, _ = fmt.Fprintf(w, "%s%s\n", head, strings.Join(d.wrap(detail, checkIndent), indent))
		if remedy != "" {
			_, _ = fmt.Fprintf(w, "%s%s\n", indent[1:], strings.Join(d.wrap("Fix: "+remedy, checkIndent), indent))
		}
		for _, command := range api.Commands(c.Remedy) {
			_, _ = fmt.Fprintf(w, "%s  %s\n", indent[1:], d.paint(cyan, printable.Text(command)))
		}
	}
}

func checkStyle(r api.CheckResult) style {
	switch r {
	case api.CheckFail:
		return red
	case api.CheckWarn:
		return yellow
	default:
		return plain
	}
}

func newReportCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "report",
		Short: "Print everything a bug report needs as one JSON document, without secrets",
		Long: "Print everything a bug report needs as one JSON document: the output of all read commands, the checks of \"weft\n" +
			"doctor\", the flags, the links and routes of the host, the metrics and the latest log lines. The document\n" +
			"contains names and addresses, but no secrets, keys or contents of frames.",
		Example: "  weft report > report.json",
		Args:    usage.Arguments(0, 0),
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
