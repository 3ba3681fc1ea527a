package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weft/bench/gate"
	"weft/bench/harness"
	"weft/internal/usage"
)

func newRunCommand() *cobra.Command {
	var o harness.Options
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Measure weft beside the kernel's VXLAN and other overlays; needs root",
		Long: "Measure weft beside the kernel's VXLAN and other overlays, in network namespaces of this machine. Each round\n" +
			"measures every driver once. The command prints a report, with ratios to vxlan in the same round, and writes the\n" +
			"report and all measurements into a folder.\n\n" +
			"--settings measures with and without segmentation offloads below the overlays, and with the cores shared by all\n" +
			"hosts or divided among them. --gate compares the ratios with stored ones and fails if some are worse.",
		Args: gateArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, file := range args { // at most one, which is the value of the flag
				if o.Gate != "" {
					o.Gate = file
				} else {
					o.GateWrite = file
				}
			}
			o.Command = strings.Join(os.Args, " ")
			return harness.Main(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addRunFlags(cmd.Flags(), &o)
	return cmd
}

// gateArgument allows an argument after --gate or --gate-write. It is the value of the flag: pflag reads the value of a flag
// that may stand alone only after "=".
func gateArgument(cmd *cobra.Command, args []string) error {
	if len(args) == 1 && cmd.Flags().Changed("gate") != cmd.Flags().Changed("gate-write") {
		return nil
	}
	return usage.Arguments(0, 0)(cmd, args)
}

func addRunFlags(f *pflag.FlagSet, o *harness.Options) {
	f.BoolVar(&o.Quick, "quick", false, "few drivers and loads: about three minutes in total")
	f.IntVar(&o.Rounds, "rounds", 0, "number of measurements of each driver (default 5; quick: at most 3)")
	f.IntVar(&o.Seconds, "seconds", 0, "duration of each load (default 5; quick: 2)")
	f.StringSliceVar(&o.Drivers, "drivers", nil, "drivers to measure, see list (default all)")
	f.StringSliceVar(&o.Loads, "loads", nil, "loads to run, see list (default all)")
	f.BoolVar(&o.Plain, "plain-underlay", false, "disable segmentation offloads below the overlays, as on a plain network card")
	f.BoolVar(&o.Pin, "pin-hosts", false, "give each host, with its daemon and loads, its own share of the cores, as separate machines have")
	f.StringSliceVar(&o.Settings, "settings", nil,
		"measure several underlays and placements in one run: plain, veth, plain-pinned, veth-pinned, or all")
	f.BoolVar(&o.NoFetch, "no-fetch", false, "build and install no tools: drivers with missing tools are skipped")
	f.StringVar(&o.Bin, "bin", "bin", "folder with the weft programs")
	f.StringVar(&o.WeftArgs, "weft-args", "", "additional flags for every \"weft up\", separated by spaces")
	f.StringVar(&o.Gate, "gate", "", "fail if a ratio is worse than in this file (alone: "+gate.DefaultFile+
		"); measure what the file needs unless other flags select something else")
	f.StringVar(&o.GateWrite, "gate-write", "", "write the steady ratios of the run to this file (alone: "+gate.DefaultFile+
		"); measure what it needs unless other flags select something else")
	f.Lookup("gate").NoOptDefVal, f.Lookup("gate-write").NoOptDefVal = gate.DefaultFile, gate.DefaultFile
	f.StringVar(&o.Out, "out", "bin/bench", "folder for results.json, report.md and pictures")
	f.StringVar(&o.Doc, "doc", "", "also write the report to this page, with its pictures in a folder beside the page")
	f.BoolVar(&o.JSON, "json", false, "print the results as JSON")
}
