package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

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
			"changed. Give it the flags of \"weft up\", or the same --config; beside a running node it leaves out what that\n" +
			"node holds. Exit code 1 where a node would not run.",
		Example: "  weft doctor --config /etc/weft/weft.yaml host1",
		Args:    between(0, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Peers = args
			if err := o.evaluate(cmd.Flags()); err != nil {
				return err
			}
			checks := daemon.Doctor(cmd.Context(), o.Config)
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

func writeChecks(w io.Writer, checks []api.Check) {
	for _, c := range checks {
		line := fmt.Sprintf("%-5s %-11s %s", c.Result, c.Name, c.Detail)
		if c.Mend != "" {
			line += ". Mend: " + c.Mend
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
