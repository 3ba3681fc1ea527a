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

// Options are the options of a run on the command line.
type Options struct {
	// Quick selects few drivers and loads, for a run of about three minutes. It does not override other options.
	Quick bool
	// Rounds and Seconds have defaults that depend on Quick if they are 0, Drivers and Loads if they are empty.
	Rounds, Seconds int
	Drivers, Loads  []string
	// Plain disables segmentation offloads on the underlay, Pin gives each host its own cores. They select one setting.
	Plain, Pin bool
	// Settings are the names of settings, instead of Plain and Pin.
	Settings []string
	// NoFetch forbids building and installing third-party programs.
	NoFetch bool
	// Bin is the folder with the weft programs. Third-party programs are built into a folder below it.
	Bin string
	// WeftArgs are additional flags of "weft up", separated by spaces.
	WeftArgs string
	// Gate, unless empty, is a file of stored ratios: the run measures what they need, unless other options select something
	// else, and fails if a ratio is worse. GateWrite, unless empty, is a file to which the run writes its own ratios.
	Gate, GateWrite string
	// Out is the folder for results, report and pictures. Doc, unless empty, is a page to which the report is also written.
	Out, Doc string
	// JSON prints the results as JSON instead of the report.
	JSON bool
	// Command is the command line of the run.
	Command string
}

// Defaults of the options.
const (
	gateRounds                = 3
	fullRounds, fullSeconds   = 5, 5
	quickRounds, quickSeconds = 3, 2
	quickBudget               = 170 * time.Second
	quickPatience             = 15 * time.Second
)

var (
	quickDrivers = []string{"vxlan", "weft", "wireguard-go"}
	quickLoads   = []string{"tcp1", "tcp4", "udp64", "ping"}
)

// Main runs the bench with the given options, writes the results into the folder o.Out, and prints the report. If ctx
// ends early, it writes the results so far.
func Main(ctx context.Context, o Options, stdout, stderr io.Writer) error {
	stored, err := o.prepareGate()
	if err != nil {
		return err
	}
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
	if runErr != nil {
		return runErr
	}
	return o.finishGate(stored, r, stderr)
}

// allUnavailable returns an error for results without a sample.
func allUnavailable(r *sample.Results) error {
	if r == nil || r.Interrupted {
		return nil
	}
	return errors.New("bench: no driver is available")
}

// config returns the Config of a run, with defaults for what the options leave open.
func (o Options) config(progress io.Writer) (Config, error) {
	c := Config{
		Rounds: or(o.Rounds, fullRounds), Seconds: or(o.Seconds, fullSeconds), Bin: o.Bin,
		Command: o.Command, Progress: progress,
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
	if c.Settings, err = o.settings(); err != nil {
		return c, err
	}
	if c.Drivers, err = driver.Select(driver.Config{Bin: o.Bin, WeftArgs: strings.Fields(o.WeftArgs)}, drivers); err != nil {
		return c, err
	}
	if c.Loads, err = load.Select(loads); err != nil {
		return c, err
	}
	// Waiting for an idle machine may at most double the duration of a run.
	c.Patience = time.Duration(c.Rounds*len(c.Settings)*len(c.Drivers)*len(c.Loads)*c.Seconds) * time.Second
	if o.Quick {
		c.Patience = quickPatience
	}
	return c, nil
}

// settings returns the settings that the options select.
func (o Options) settings() ([]sample.Setting, error) {
	if len(o.Settings) > 0 {
		if o.Plain || o.Pin {
			return nil, errors.New("bench: --settings replaces --plain-underlay and --pin-hosts: use --settings only")
		}
		return sample.ParseSettings(o.Settings)
	}
	s := sample.Setting{Underlay: sample.Veth, Placement: sample.Free}
	if o.Plain {
		s.Underlay = sample.PlainUnderlay
	}
	if o.Pin {
		s.Placement = sample.Pinned
	}
	return []sample.Setting{s}, nil
}

func or(value, otherwise int) int {
	if value != 0 {
		return value
	}
	return otherwise
}

// write writes the results to o.Out and o.Doc, and prints the report or the results to stdout.
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

// List prints the names and summaries of all drivers, loads and settings.
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
	b.WriteString("\nSettings, for --settings:\n")
	for _, s := range sample.Settings() {
		fmt.Fprintf(&b, "  %-15s %s\n", s, s.Title())
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	return nil
}
