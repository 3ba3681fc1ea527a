package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weft/bench/harness"
)

func newRunCommand() *cobra.Command {
	var o harness.Options
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Measure weft beside the kernel's VXLAN and other overlays; needs root",
		Long: "Measure weft beside the kernel's VXLAN and other overlays, in namespaces of this machine, in rounds that take turns.\n" +
			"Prints a report, whose ratios are to vxlan in the same round, and writes it with everything measured into a folder.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Command = strings.Join(os.Args, " ")
			return harness.Main(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addRunFlags(cmd.Flags(), &o)
	return cmd
}

func addRunFlags(f *pflag.FlagSet, o *harness.Options) {
	f.BoolVar(&o.Quick, "quick", false, "few drivers and loads: about three minutes in all")
	f.IntVar(&o.Rounds, "rounds", 0, "how often each driver is measured (default 5; quick: at most 3)")
	f.IntVar(&o.Seconds, "seconds", 0, "how long each load measures (default 5; quick: 2)")
	f.StringSliceVar(&o.Drivers, "drivers", nil, "drivers to measure, see list (default all)")
	f.StringSliceVar(&o.Loads, "loads", nil, "loads to run, see list (default all)")
	f.BoolVar(&o.Plain, "plain-underlay", false, "no segmentation offloads below the overlays, as on a plain network card")
	f.BoolVar(&o.NoFetch, "no-fetch", false, "build and install nothing: what is missing is not available")
	f.StringVar(&o.Bin, "bin", "bin", "folder with the weft programs")
	f.StringVar(&o.WeftArgs, "weft-args", "", "further flags for every \"weft up\", separated by blanks")
	f.StringVar(&o.Out, "out", "bin/bench", "folder for results.json, report.md and pictures")
	f.StringVar(&o.Doc, "doc", "", "also write the report as this page, with pictures in a folder beside it")
	f.BoolVar(&o.JSON, "json", false, "print the results as JSON")
}
