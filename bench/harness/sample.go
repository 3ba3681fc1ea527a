package harness

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"weft/bench/driver"
	"weft/bench/lab"
	"weft/bench/load"
	"weft/bench/meter"
	"weft/bench/sample"
)

// Limits for work of other processes during a sample.
const (
	quietCores    = 0.25             // a sample is good if other work uses at most this number of cores
	quietPatience = 10 * time.Second // maximum time to wait for an idle machine before one sample
	maxTries      = 3                // maximum number of measurements for one sample
)

// runShape starts a driver on a new lab and runs loads through it. It returns an error if the driver did not start.
func (r *runner) runShape(ctx context.Context, t turn, shape lab.Shape, loads []load.Load) error {
	d, facts := t.driver, &r.results.Drivers[t.index].Facts
	l, err := lab.New(ctx, shape)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := l.Close(); closeErr != nil {
			r.printf("%s: removing the lab failed: %v", d.Name(), closeErr)
		}
	}()
	if err := apply(ctx, l, t.setting); err != nil {
		return err
	}
	o, err := d.Up(ctx, l)
	if o != nil {
		defer o.Close()
	}
	if err == nil {
		err = o.Ready(ctx)
	}
	if err != nil {
		return err
	}
	if shape == lab.Pair || facts.Ends == "" {
		*facts = o.Facts
	}
	env := &load.Env{Lab: l, Ends: o.Ends, Seconds: r.cfg.Seconds}
	for i, ld := range loads {
		s := r.measure(ctx, env, o, ld)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.Round, s.Driver, s.Setting = t.round, d.Name(), t.setting
		r.results.Samples = append(r.results.Samples, s)
		r.clock.done(ld.Name, time.Duration(s.Seconds*float64(time.Second)))
		r.printf("%s", r.line(s, ld))
		if dead := o.Alive(); dead != nil && i+1 < len(loads) {
			r.failed(t, loads[i+1:], dead)
			break
		}
	}
	return nil
}

// apply changes a new lab to a setting.
func apply(ctx context.Context, l *lab.Lab, s sample.Setting) error {
	if err := l.Plain(ctx, s.Underlay == sample.PlainUnderlay); err != nil {
		return err
	}
	if s.Placement != sample.Pinned {
		return nil
	}
	cores, err := lab.Cores()
	if err != nil {
		return err
	}
	return l.Pin(ctx, cores)
}

// measure runs a load, repeats it while other work disturbs it unless that does not matter, and returns the sample with
// the least other work.
func (r *runner) measure(ctx context.Context, env *load.Env, o *driver.Overlay, ld load.Load) sample.Sample {
	start := time.Now()
	var best sample.Sample
	for try := 1; try <= maxTries && ctx.Err() == nil; try++ {
		began := time.Now()
		s := r.once(ctx, env, o, ld)
		if try > 1 {
			r.patience -= time.Since(began)
		}
		if try == 1 || s.Error == "" && (best.Error != "" || s.OtherCores < best.OtherCores) {
			best = s
		}
		best.Tries = try
		if best.Error == "" && (!best.Busy || ld.Once) || o.Alive() != nil || r.patience <= 0 {
			break
		}
	}
	best.Load, best.Seconds = ld.Name, time.Since(start).Seconds()
	return best
}

// memoryEvery is the time between two readings of the daemons' memory during a load.
const memoryEvery = time.Second

// once waits until the machine is idle or patience has ended, and runs a load once.
func (r *runner) once(ctx context.Context, env *load.Env, o *driver.Overlay, ld load.Load) (s sample.Sample) {
	began := time.Now()
	idle, err := meter.WaitIdle(ctx, o.Pids(), quietCores, max(min(quietPatience, r.patience), 0))
	r.patience -= time.Since(began)
	if err != nil {
		return sample.Sample{Error: sentence(err)}
	}
	counters, err := meter.OpenCounters(o.Pids(), r.events)
	if err != nil {
		r.printf("events of the daemons are not counted: %v", err)
		counters = &meter.Counters{}
	}
	defer counters.Close()
	before, err := meter.Read(o.Pids())
	if err != nil {
		return sample.Sample{Error: sentence(err)}
	}
	memory := meter.WatchRSS(o.Pids(), memoryEvery)
	out, err := ld.Run(ctx, env)
	readings := memory()
	after, readErr := meter.Read(o.Pids())
	counts, countErr := counters.Read()
	if err := errors.Join(err, readErr, countErr); err != nil {
		return sample.Sample{Error: sentence(err)}
	}
	u := after.Since(before)
	s = sample.Sample{
		Values: out.Values, Bytes: out.Bytes, DaemonCPU: u.Daemons.Seconds(), MachineCPU: u.Machine.Seconds(),
		OtherCores: u.OtherCores, Busy: u.OtherCores > quietCores || !idle,
	}
	addEvents(&s, counts, out.Bytes)
	if err := derive(&s, out, u, readings, o.Pids(), ld.Name); err != nil {
		s.Error = sentence(err)
	}
	return s
}

// perGB are the metrics of events per GB.
var perGB = map[meter.Event]sample.Metric{
	meter.ContextSwitches: sample.ContextSwitches,
	meter.CPUMigrations:   sample.CPUMigrations,
	meter.CacheMisses:     sample.CacheMisses,
}

// addEvents adds the counts of the daemons' events to a sample, and the counts per GB if the load carried bytes.
func addEvents(s *sample.Sample, counts map[meter.Event]uint64, bytes uint64) {
	for e, n := range counts {
		if s.Events == nil {
			s.Events = map[string]uint64{}
		}
		s.Events[string(e)] = n
		if bytes > 0 {
			s.Values[perGB[e]] = float64(n) / (float64(bytes) / 1e9)
		}
	}
}

// derive adds the figures about the daemons and the machine to a sample. memory has the readings of RSS during the load.
func derive(s *sample.Sample, out load.Outcome, u meter.Usage, memory []int64, pids []int, name string) error {
	if gb := float64(out.Bytes) / 1e9; gb > 0 {
		s.Values[sample.MachineCPU] = u.Machine.Seconds() / gb
		if len(pids) > 0 {
			s.Values[sample.DaemonCPU] = u.Daemons.Seconds() / gb
		}
	}
	if len(pids) == 0 {
		return nil
	}
	if out.Packets > 0 {
		s.Values[sample.PacketCPU] = float64(u.Daemons.Microseconds()) / float64(out.Packets)
	}
	if name == load.IdleName {
		s.Values[sample.IdleCPU] = 100 * u.Daemons.Seconds() / u.Elapsed.Seconds()
	}
	if grown, ok := meter.Growth(memory); ok && name == load.MixedName {
		s.Values[sample.Growth] = float64(grown) / (1 << 20)
	}
	rss, err := meter.RSS(pids)
	s.Values[sample.RSS] = float64(rss) / (1 << 20)
	return err
}

// line returns one line about a sample, for people.
func (r *runner) line(s sample.Sample, ld load.Load) string {
	var b strings.Builder
	fmt.Fprintf(&b, "round %d/%d  %-12s %-14s %-10s ", s.Round, r.cfg.Rounds, s.Setting, s.Driver, s.Load)
	if s.Error != "" {
		b.WriteString("failed: " + s.Error)
	}
	for _, m := range []sample.Metric{ld.Headline, sample.DaemonCPU, sample.P99} {
		if v, ok := s.Values[m]; ok {
			fmt.Fprintf(&b, " %9.*f %-7s", m.Info().Decimals, v, m.Info().Unit)
		}
	}
	if s.Busy {
		fmt.Fprintf(&b, " (other work: %.2f cores)", s.OtherCores)
	}
	return fmt.Sprintf("%s  %s left", b.String(), r.clock.left())
}
