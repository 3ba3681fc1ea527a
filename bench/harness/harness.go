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
	"weft/bench/meter"
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
	// Settings are measured one after another in each round.
	Settings []sample.Setting
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
	events   []meter.Event // events that this machine can count
}

// Run runs the bench. If ctx ends early, it returns the results so far, marked as interrupted, and the error of ctx. A
// failure of one driver is part of the results, not an error.
func Run(ctx context.Context, cfg Config) (*sample.Results, error) {
	if err := check(cfg); err != nil {
		return nil, err
	}
	r := &runner{cfg: cfg, began: time.Now(), patience: cfg.Patience, results: &sample.Results{
		Command: cfg.Command, Date: time.Now().UTC().Truncate(time.Second), Weft: driver.WeftVersion(ctx, cfg.Bin), Machine: Machine(ctx),
		Seconds: cfg.Seconds, Underlay: underlay(cfg.Settings),
	}}
	for _, l := range cfg.Loads {
		r.results.Loads = append(r.results.Loads, sample.Load{Name: l.Name, Summary: l.Summary})
	}
	r.chooseEvents()
	r.prepare(ctx)
	r.clock = newClock(cfg, r.available())
	for round := 1; round <= cfg.Rounds && ctx.Err() == nil && r.affords(round); round++ {
		r.results.Rounds = round
		for _, s := range cfg.Settings {
			for i, d := range cfg.Drivers {
				if r.results.Drivers[i].Unavailable == "" {
					r.runDriver(ctx, turn{round, s, i, d})
				}
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
	if cfg.Rounds < 1 || cfg.Seconds < 1 || len(cfg.Drivers) == 0 || len(cfg.Loads) == 0 || len(cfg.Settings) == 0 {
		return errors.New("bench: a run needs at least one round, one second, one driver, one load and one setting")
	}
	required := programs
	if slices.ContainsFunc(cfg.Settings, func(s sample.Setting) bool { return s.Placement == sample.Pinned }) {
		cores, err := lab.Cores()
		if err != nil {
			return err
		}
		if err := checkCores(len(cores)); err != nil {
			return err
		}
		required = append(slices.Clone(programs), "taskset")
	}
	for _, p := range required {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("bench: %w (run make system-packages to install it)", err)
		}
	}
	return nil
}

// checkCores returns an error if two hosts cannot have cores of their own.
func checkCores(n int) error {
	if n < 2 {
		return fmt.Errorf("bench: pinned hosts need at least 2 cores, one for each host, and this process can use %d: "+
			"run without --pin-hosts and pinned settings, or on a machine with more cores", n)
	}
	return nil
}

// underlay describes the underlays of a run.
func underlay(settings []sample.Setting) string {
	var texts []string
	for _, u := range []sample.Underlay{sample.PlainUnderlay, sample.Veth} {
		if slices.ContainsFunc(settings, func(s sample.Setting) bool { return s.Underlay == u }) {
			texts = append(texts, underlays[u])
		}
	}
	return "veth pairs on a bridge, MTU 1500; " + strings.Join(texts, "; ")
}

// underlays describe each underlay.
var underlays = map[sample.Underlay]string{
	sample.PlainUnderlay: "plain: sending without segmentation offloads, receiving with GRO, which is closer to a plain network card",
	sample.Veth:          "veth: batches of up to 64 KB pass as one packet, which favors drivers that send batches",
}

func (r *runner) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(r.cfg.Progress, format+"\n", args...)
}

// chooseEvents selects the events that this machine can count, and records the others.
func (r *runner) chooseEvents() {
	var missing map[meter.Event]string
	r.events, missing = meter.Countable()
	for e, why := range missing {
		if r.results.Machine.NotCounted == nil {
			r.results.Machine.NotCounted = map[string]string{}
		}
		r.results.Machine.NotCounted[string(e)] = why
	}
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

// turn is one driver's part of a round.
type turn struct {
	round   int
	setting sample.Setting
	index   int // of the driver in the results
	driver  driver.Driver
}

// runDriver runs all loads once through a driver, with a new lab for each shape, so that no state of an earlier round can
// remain.
func (r *runner) runDriver(ctx context.Context, t turn) {
	for _, shape := range shapes {
		loads := slices.DeleteFunc(slices.Clone(r.cfg.Loads), func(l load.Load) bool { return l.Shape != shape })
		if len(loads) == 0 || ctx.Err() != nil || r.results.Drivers[t.index].Unavailable != "" {
			continue
		}
		if err := r.runShape(ctx, t, shape, loads); err != nil && ctx.Err() == nil {
			r.failed(t, loads, err)
		}
	}
}

// failed records that a driver did not start or has ended, which is the result of loads. A driver that never worked on a
// pair becomes unavailable for the rest of the run.
func (r *runner) failed(t turn, loads []load.Load, err error) {
	text, name := sentence(err), t.driver.Name()
	if errors.Is(err, driver.ErrUnavailable) && loads[0].Shape == lab.Pair && !r.measured(name) {
		r.results.Drivers[t.index].Unavailable = text
		r.printf("%s: not available: %s", name, text)
		r.clock.drop(r.cfg.Loads, r.cfg.Rounds*len(r.cfg.Settings))
		return
	}
	r.printf("round %d/%d  %s, %s: no %s: %s", t.round, r.cfg.Rounds, t.setting, name, loads[0].Name, text)
	for _, l := range loads {
		r.clock.done(l.Name, 0)
		if l.Shape != lab.Pair && (errors.Is(err, driver.ErrUnavailable) || errors.Is(err, lab.ErrFewCores)) {
			continue // the driver or the machine does not support this shape, which is not a failure
		}
		r.results.Samples = append(r.results.Samples,
			sample.Sample{Round: t.round, Driver: name, Load: l.Name, Setting: t.setting, Error: text})
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
