// Package harness runs the bench. Each round measures every driver once. For every sample it also measures the CPU time
// of processes that do not belong to the bench.
package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"weft/bench/driver"
	"weft/bench/lab"
	"weft/bench/load"
	"weft/bench/sample"
)

// Config configures a run.
type Config struct {
	// Drivers and Loads run in their order. A round runs all drivers once.
	Drivers []driver.Driver
	Loads   []load.Load
	// Rounds is the number of rounds, Seconds the duration of each load.
	Rounds, Seconds int
	// Budget, unless 0, bounds the duration of the run: a round that would exceed it, judging by earlier rounds, does not
	// start.
	Budget time.Duration
	// Patience bounds the total time for waiting until the machine is idle and for repeating samples. After that, each
	// sample is measured once, and marked if other work disturbed it.
	Patience time.Duration
	// Plain disables segmentation offloads on the underlay, which is closer to a network card (lab.Lab.Plain).
	Plain bool
	// Tools fetches third-party programs.
	Tools *driver.Tools
	// Bin is the folder with the weft programs.
	Bin string
	// Command is the command line of the run, for the report.
	Command string
	// Progress receives one line per sample.
	Progress io.Writer
}

// programs are the programs that every run needs.
var programs = []string{"iperf3", "ping", "ip", "bridge", "nft", "nsenter"}

// runner is the state of a run.
type runner struct {
	cfg      Config
	results  *sample.Results
	began    time.Time
	clock    clock
	patience time.Duration // the rest of Config.Patience
}

// Run runs the bench. If ctx ends early, it returns the results so far, marked as interrupted, and the error of ctx. A
// failure of one driver is part of the results, not an error.
func Run(ctx context.Context, cfg Config) (*sample.Results, error) {
	if err := check(cfg); err != nil {
		return nil, err
	}
	r := &runner{cfg: cfg, began: time.Now(), patience: cfg.Patience, results: &sample.Results{
		Command: cfg.Command, Date: time.Now().UTC().Truncate(time.Second), Weft: driver.WeftVersion(ctx, cfg.Bin), Machine: Machine(ctx),
		Seconds: cfg.Seconds, Underlay: underlay(cfg.Plain),
	}}
	for _, l := range cfg.Loads {
		r.results.Loads = append(r.results.Loads, sample.Load{Name: l.Name, Summary: l.Summary})
	}
	r.prepare(ctx)
	r.clock = newClock(cfg, r.available())
	for round := 1; round <= cfg.Rounds && ctx.Err() == nil && r.affords(round); round++ {
		r.results.Rounds = round
		for i, d := range cfg.Drivers {
			if r.results.Drivers[i].Unavailable == "" {
				r.runDriver(ctx, round, i, d)
			}
		}
	}
	r.results.Interrupted = ctx.Err() != nil
	return r.results, ctx.Err()
}

// check returns an error for a configuration or a machine with which no run is possible.
func check(cfg Config) error {
	if os.Geteuid() != 0 {
		return errors.New("bench: creating network namespaces needs root: run sudo make bench")
	}
	if cfg.Rounds < 1 || cfg.Seconds < 1 || len(cfg.Drivers) == 0 || len(cfg.Loads) == 0 {
		return errors.New("bench: a run needs at least one round, one second, one driver and one load")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("bench: %w (run make system-packages to install it)", err)
		}
	}
	return nil
}

func underlay(plain bool) string {
	if plain {
		return "veth pairs on a bridge, MTU 1500, sending without segmentation offloads, receiving with GRO: closer to a plain network card"
	}
	return "veth pairs on a bridge, MTU 1500: batches of up to 64 KB pass as one packet, which favors drivers that send batches"
}

func (r *runner) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(r.cfg.Progress, format+"\n", args...)
}

// prepare lets each driver fetch the programs that it needs, and records which drivers are available.
func (r *runner) prepare(ctx context.Context) {
	for _, d := range r.cfg.Drivers {
		entry := sample.Driver{Name: d.Name(), Summary: d.Summary()}
		if err := d.Prepare(ctx, r.cfg.Tools); err != nil {
			entry.Unavailable = sentence(err)
			r.printf("%s: not available: %s", d.Name(), entry.Unavailable)
		}
		r.results.Drivers = append(r.results.Drivers, entry)
	}
}

func (r *runner) available() (n int) {
	for _, d := range r.results.Drivers {
		if d.Unavailable == "" {
			n++
		}
	}
	return n
}

// shapes are the shapes of the lab that loads may need, in the order of the run.
var shapes = []lab.Shape{lab.Pair, lab.Chain, lab.Three}

// affords reports whether a round fits into the rest of the budget, if it takes as long as the average of those before.
func (r *runner) affords(round int) bool {
	done := time.Duration(round - 1)
	if r.cfg.Budget == 0 || done == 0 {
		return true
	}
	elapsed := time.Since(r.began)
	if elapsed+elapsed/done <= r.cfg.Budget {
		return true
	}
	r.printf("%d of %d rounds fit into %s", done, r.cfg.Rounds, r.cfg.Budget)
	return false
}

// runDriver runs all loads once through a driver, with a new lab for each shape, so that no state of an earlier round can
// remain.
func (r *runner) runDriver(ctx context.Context, round, index int, d driver.Driver) {
	for _, shape := range shapes {
		loads := slices.DeleteFunc(slices.Clone(r.cfg.Loads), func(l load.Load) bool { return l.Shape != shape })
		if len(loads) == 0 || ctx.Err() != nil || r.results.Drivers[index].Unavailable != "" {
			continue
		}
		if err := r.runShape(ctx, round, index, d, shape, loads); err != nil && ctx.Err() == nil {
			r.failed(round, d, loads, err, index)
		}
	}
}

// failed records that a driver did not start or has ended, which is the result of loads. A driver that never worked on a
// pair becomes unavailable for the rest of the run.
func (r *runner) failed(round int, d driver.Driver, loads []load.Load, err error, index int) {
	text := sentence(err)
	if errors.Is(err, driver.ErrUnavailable) && loads[0].Shape == lab.Pair && !r.measured(d.Name()) {
		r.results.Drivers[index].Unavailable = text
		r.printf("%s: not available: %s", d.Name(), text)
		r.clock.drop(r.cfg.Loads, r.cfg.Rounds)
		return
	}
	r.printf("round %d/%d  %s: no %s: %s", round, r.cfg.Rounds, d.Name(), loads[0].Name, text)
	for _, l := range loads {
		r.clock.done(l.Name, 0)
		if errors.Is(err, driver.ErrUnavailable) && l.Shape != lab.Pair {
			continue // the driver does not support this shape, which is not a failure
		}
		r.results.Samples = append(r.results.Samples, sample.Sample{Round: round, Driver: d.Name(), Load: l.Name, Error: text})
	}
}

// measured reports whether there is a successful sample of a driver.
func (r *runner) measured(name string) bool {
	return slices.ContainsFunc(r.results.Samples, func(s sample.Sample) bool { return s.Driver == name && s.Error == "" })
}

// sentence returns the text of an error on one line, without the prefix of driver.ErrUnavailable, which the output has
// anyway.
func sentence(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", " ")
	text = strings.TrimPrefix(text, driver.ErrUnavailable.Error()+": ")
	return strings.TrimPrefix(text, "driver: ")
}
