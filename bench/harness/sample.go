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

// How samples are kept clean of other work.
const (
	quietCores    = 0.25             // of others' work, in which a sample is still good
	quietPatience = 10 * time.Second // for one sample
	maxTries      = 3
)

// runShape brings a driver up on a new lab and runs loads through it. Its error is that it did not come up.
func (r *runner) runShape(ctx context.Context, round, index int, d driver.Driver, shape lab.Shape, loads []load.Load) (err error) {
	l, err := lab.New(ctx, shape)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := l.Close(); closeErr != nil {
			r.say("%s: leaves something behind: %v", d.Name(), closeErr)
		}
	}()
	if err := l.Plain(ctx, r.cfg.Plain); err != nil {
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
	if shape == lab.Pair || r.results.Drivers[index].Facts.Ends == "" {
		r.results.Drivers[index].Facts = o.Facts
	}
	env := &load.Env{Lab: l, Ends: o.Ends, Seconds: r.cfg.Seconds}
	for i, ld := range loads {
		s := r.take(ctx, env, o, ld)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.Round, s.Driver = round, d.Name()
		r.results.Samples = append(r.results.Samples, s)
		r.clock.done(ld.Name, time.Duration(s.Seconds*float64(time.Second)))
		r.say("%s", r.line(s, ld))
		if dead := o.Alive(); dead != nil && i+1 < len(loads) {
			r.failed(round, d, loads[i+1:], dead, index)
			break
		}
	}
	return nil
}

// take takes a sample, again where other work was in the way, and returns the one that had the least of it.
func (r *runner) take(ctx context.Context, env *load.Env, o *driver.Overlay, ld load.Load) sample.Sample {
	start := time.Now()
	var best sample.Sample
	for try := 1; try <= maxTries && ctx.Err() == nil; try++ {
		began := time.Now()
		s := r.once(ctx, env, o, ld)
		if try > 1 {
			r.patience -= time.Since(began)
		}
		if try == 1 || s.Error == "" && (best.Error != "" || s.Foreign < best.Foreign) {
			best = s
		}
		best.Tries = try
		if best.Error == "" && !best.Busy || o.Alive() != nil || r.patience <= 0 {
			break
		}
	}
	best.Load, best.Seconds = ld.Name, time.Since(start).Seconds()
	return best
}

// once runs a load once, when the machine is idle or patience has ended.
func (r *runner) once(ctx context.Context, env *load.Env, o *driver.Overlay, ld load.Load) (s sample.Sample) {
	began := time.Now()
	idle, err := meter.WaitIdle(ctx, o.Pids(), quietCores, max(min(quietPatience, r.patience), 0))
	r.patience -= time.Since(began)
	if err != nil {
		return sample.Sample{Error: sentence(err)}
	}
	before, err := meter.Read(o.Pids())
	if err != nil {
		return sample.Sample{Error: sentence(err)}
	}
	out, err := ld.Run(ctx, env)
	after, readErr := meter.Read(o.Pids())
	if err := errors.Join(err, readErr); err != nil {
		return sample.Sample{Error: sentence(err)}
	}
	u := after.Since(before)
	s = sample.Sample{
		Values: out.Values, Bytes: out.Bytes, DaemonCPU: u.Daemons.Seconds(), MachineCPU: u.Machine.Seconds(),
		Foreign: u.Foreign, Busy: u.Foreign > quietCores || !idle,
	}
	if err := derive(&s, out, u, o.Pids(), ld.Name); err != nil {
		s.Error = sentence(err)
	}
	return s
}

// derive adds the figures that are about the daemons.
func derive(s *sample.Sample, out load.Outcome, u meter.Usage, pids []int, name string) error {
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
	rss, err := meter.RSS(pids)
	s.Values[sample.RSS] = float64(rss) / (1 << 20)
	return err
}

// line returns a sample in a line for people.
func (r *runner) line(s sample.Sample, ld load.Load) string {
	var b strings.Builder
	fmt.Fprintf(&b, "round %d/%d  %-14s %-10s ", s.Round, r.cfg.Rounds, s.Driver, s.Load)
	if s.Error != "" {
		b.WriteString("failed: " + s.Error)
	}
	for _, m := range []sample.Metric{ld.Headline, sample.DaemonCPU, sample.P99} {
		if v, ok := s.Values[m]; ok {
			fmt.Fprintf(&b, " %9.*f %-7s", m.Info().Decimals, v, m.Info().Unit)
		}
	}
	if s.Busy {
		fmt.Fprintf(&b, " (other work: %.2f cores)", s.Foreign)
	}
	return fmt.Sprintf("%s  %s left", b.String(), r.clock.left())
}
