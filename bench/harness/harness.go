// Package harness runs the bench: rounds that take turns over the drivers, with every sample watched for what else the
// machine did meanwhile.
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

// Config says what to run.
type Config struct {
	// Drivers and Loads are run in their order, all drivers once before any of them again.
	Drivers []driver.Driver
	Loads   []load.Load
	// Rounds is how often, Seconds how long each load measures.
	Rounds, Seconds int
	// Budget, unless 0, is how long the run may take: a round that would not end within it, going by those before, is not begun.
	Budget time.Duration
	// Patience bounds, over the whole run, what waiting for an idle machine and repeating samples may take; what comes after it
	// is measured once, and marked where other work was in the way.
	Patience time.Duration
	// Plain has the underlay without segmentation offloads, nearer to a network card (lab.Lab.Plain).
	Plain bool
	// Tools fetches other people's programs.
	Tools *driver.Tools
	// Bin is the folder with the weft programs.
	Bin string
	// Command is how the run was started, for the report.
	Command string
	// Progress takes a line a sample.
	Progress io.Writer
}

// programs are those that every run needs.
var programs = []string{"iperf3", "ping", "ip", "bridge", "nft", "nsenter"}

// runner is a run.
type runner struct {
	cfg      Config
	results  *sample.Results
	began    time.Time
	clock    clock
	patience time.Duration // what is left of Config.Patience
}

// Run runs the bench. Where ctx ends it early, it returns what it has, marked as interrupted, and ctx's error. What one driver
// cannot do is part of the results and no error.
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

// check refuses what cannot run at all.
func check(cfg Config) error {
	if os.Geteuid() != 0 {
		return errors.New("bench: it makes network namespaces and needs root: sudo make bench")
	}
	if cfg.Rounds < 1 || cfg.Seconds < 1 || len(cfg.Drivers) == 0 || len(cfg.Loads) == 0 {
		return errors.New("bench: it takes at least a round, a second, a driver and a load")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("bench: %w (make system-packages installs it)", err)
		}
	}
	return nil
}

func underlay(plain bool) string {
	if plain {
		return "veth pairs on a bridge, MTU 1500, sending without segmentation offloads, receiving with GRO: nearer to a plain network card"
	}
	return "veth pairs on a bridge, MTU 1500: batches of up to 64 KB pass whole, which flatters everyone who makes them"
}

func (r *runner) say(format string, args ...any) {
	_, _ = fmt.Fprintf(r.cfg.Progress, format+"\n", args...)
}

// prepare has each driver fetch what it needs.
func (r *runner) prepare(ctx context.Context) {
	for _, d := range r.cfg.Drivers {
		entry := sample.Driver{Name: d.Name(), Summary: d.Summary()}
		if err := d.Prepare(ctx, r.cfg.Tools); err != nil {
			entry.Unavailable = sentence(err)
			r.say("%s: not available: %s", d.Name(), entry.Unavailable)
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

// shapes are those that loads may need, in the order in which they are run.
var shapes = []lab.Shape{lab.Pair, lab.Chain, lab.Three}

// affords reports whether a round fits into what is left of the budget, if it takes as long as those before it.
func (r *runner) affords(round int) bool {
	done := time.Duration(round - 1)
	if r.cfg.Budget == 0 || done == 0 {
		return true
	}
	elapsed := time.Since(r.began)
	if elapsed+elapsed/done <= r.cfg.Budget {
		return true
	}
	r.say("%d of %d rounds fit into %s", done, r.cfg.Rounds, r.cfg.Budget)
	return false
}

// runDriver runs all loads once through a driver, with a new lab for each shape: nothing of an earlier round can be
// left in it.
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

// failed records that a driver did not come up. One that never did, on a pair, is not available.
func (r *runner) failed(round int, d driver.Driver, loads []load.Load, err error, index int) {
	text := sentence(err)
	if errors.Is(err, driver.ErrUnavailable) && loads[0].Shape == lab.Pair && !r.measured(d.Name()) {
		r.results.Drivers[index].Unavailable = text
		r.say("%s: not available: %s", d.Name(), text)
		r.clock.drop(r.cfg.Loads, r.cfg.Rounds)
		return
	}
	r.say("round %d/%d  %s: no %s: %s", round, r.cfg.Rounds, d.Name(), loads[0].Name, text)
	for _, l := range loads {
		r.clock.done(l.Name, 0)
		if errors.Is(err, driver.ErrUnavailable) && l.Shape != lab.Pair {
			continue // it cannot, which is no failure
		}
		r.results.Samples = append(r.results.Samples, sample.Sample{Round: round, Driver: d.Name(), Load: l.Name, Error: text})
	}
}

// measured reports whether there is a sample of a driver.
func (r *runner) measured(name string) bool {
	return slices.ContainsFunc(r.results.Samples, func(s sample.Sample) bool { return s.Driver == name && s.Error == "" })
}

// sentence returns an error on one line, without the marker that the reader sees anyway.
func sentence(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", " ")
	text = strings.TrimPrefix(text, driver.ErrUnavailable.Error()+": ")
	return strings.TrimPrefix(text, "driver: ")
}
