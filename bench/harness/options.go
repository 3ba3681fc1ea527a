package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"weft/bench/driver"
	"weft/bench/load"
	"weft/bench/report"
	"weft/bench/sample"
)

// Options are a run as the command line says it.
type Options struct {
	// Quick takes few drivers and loads, and ends within about three minutes. What is named explicitly stays.
	Quick bool
	// Rounds and Seconds are taken from the kind of run where they are 0, Drivers and Loads where they are empty.
	Rounds, Seconds int
	Drivers, Loads  []string
	// Plain has the underlay without segmentation offloads.
	Plain bool
	// NoFetch forbids to build or install other people's programs.
	NoFetch bool
	// Bin is the folder with the weft programs; what is built for the bench goes into a folder below it.
	Bin string
	// WeftArgs are further flags of "weft up", separated by blanks.
	WeftArgs string
	// Out is the folder for results, report and pictures; Doc, unless empty, a page of documentation to write as well.
	Out, Doc string
	// JSON prints the results as JSON in place of the report.
	JSON bool
	// Command is how the run was started.
	Command string
}

// What a run takes where the options do not say.
const (
	fullRounds, fullSeconds   = 5, 5
	quickRounds, quickSeconds = 3, 2
	quickBudget               = 170 * time.Second
	quickPatience             = 15 * time.Second
)

var (
	quickDrivers = []string{"vxlan", "weft", "wireguard-go"}
	quickLoads   = []string{"tcp1", "tcp4", "udp64", "ping"}
)

// Main runs the bench as the options say, writes what came of it into their folder, and prints the report. A run that
// is ended early is written as far as it got.
func Main(ctx context.Context, o Options, stdout, stderr io.Writer) error {
	cfg, err := o.config(stderr)
	if err != nil {
		return err
	}
	r, runErr := Run(ctx, cfg)
	if r == nil || len(r.Samples) == 0 {
		return errors.Join(runErr, allUnavailable(r))
	}
	if err := o.write(r, stdout, stderr); err != nil {
		return errors.Join(runErr, err)
	}
	return runErr
}

// allUnavailable returns an error for results without a sample.
func allUnavailable(r *sample.Results) error {
	if r == nil || r.Interrupted {
		return nil
	}
	return errors.New("bench: no driver is available")
}

// config fills in what the options leave open.
func (o Options) config(progress io.Writer) (Config, error) {
	c := Config{
		Rounds: or(o.Rounds, fullRounds), Seconds: or(o.Seconds, fullSeconds), Plain: o.Plain, Bin: o.Bin, Command: o.Command, Progress: progress,
		Tools: &driver.Tools{Dir: filepath.Join(o.Bin, "bench-tools"), NoFetch: o.NoFetch, Out: progress},
	}
	drivers, loads := o.Drivers, o.Loads
	if o.Quick {
		c.Rounds, c.Seconds, c.Budget = or(o.Rounds, quickRounds), or(o.Seconds, quickSeconds), quickBudget
		if len(drivers) == 0 {
			drivers = quickDrivers
		}
		if len(loads) == 0 {
			loads = quickLoads
		}
	}
	var err error
	if c.Drivers, err = driver.Select(driver.Config{Bin: o.Bin, WeftArgs: strings.Fields(o.WeftArgs)}, drivers); err != nil {
		return c, err
	}
	if c.Loads, err = load.Select(loads); err != nil {
		return c, err
	}
	// Waiting for quiet may double the length of a run, not more.
	c.Patience = time.Duration(c.Rounds*len(c.Drivers)*len(c.Loads)*c.Seconds) * time.Second
	if o.Quick {
		c.Patience = quickPatience
	}
	return c, nil
}

func or(value, otherwise int) int {
	if value != 0 {
		return value
	}
	return otherwise
}

// write puts the results where the options say.
func (o Options) write(r *sample.Results, stdout, stderr io.Writer) error {
	if err := report.Write(r, o.Out); err != nil {
		return err
	}
	if o.Doc != "" {
		if err := report.WriteDoc(r, o.Doc); err != nil {
			return err
		}
	}
	text := []byte(report.Text(r))
	if o.JSON {
		var err error
		if text, err = report.JSON(r); err != nil {
			return err
		}
	}
	if _, err := stdout.Write(text); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	_, _ = fmt.Fprintf(stderr, "written to %s: %s, report.md, pictures\n", o.Out, report.ResultsFile)
	return nil
}

// List prints the drivers and the loads, each with a sentence.
func List(w io.Writer) error {
	var b strings.Builder
	b.WriteString("Drivers, for --drivers:\n")
	for _, d := range driver.All(driver.Config{}) {
		fmt.Fprintf(&b, "  %-15s %s\n", d.Name(), d.Summary())
	}
	b.WriteString("\nLoads, for --loads:\n")
	for _, l := range load.All() {
		fmt.Fprintf(&b, "  %-15s %s\n", l.Name, l.Summary)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	return nil
}
