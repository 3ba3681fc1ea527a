// Package driver starts overlays on a lab: weft in its modes, the kernel's VXLAN, other daemons, or no overlay.
package driver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"weft/bench/lab"
	"weft/bench/sample"
	"weft/internal/nettest"
)

// Driver carries traffic between the ends of a lab. It is used by one goroutine at a time.
type Driver interface {
	// Name returns the name for --drivers.
	Name() string
	// Summary returns a sentence for people.
	Summary() string
	// Prepare fetches and builds the programs that Up needs. It is called once per run, before all rounds. Its error is the
	// reason why the driver is not available.
	Prepare(ctx context.Context, t *Tools) error
	// Up starts the overlay on an empty lab. It need not wait until packets pass. The caller closes the overlay before the
	// lab, also if Up returns an overlay and an error. An error that wraps ErrUnavailable concerns this machine or version,
	// not only this run.
	Up(ctx context.Context, l *lab.Lab) (*Overlay, error)
}

// ErrUnavailable is wrapped by errors of a driver that cannot be measured on this machine.
var ErrUnavailable = errors.New("not available")

// Overlay is an overlay that a driver has started.
type Overlay struct {
	// Ends are the endpoints of the loads, in the order of the lab's ends.
	Ends []lab.End
	// Facts describe the overlay.
	Facts sample.Facts
	// Daemons are the processes that carry the traffic; empty if the kernel does.
	Daemons []*nettest.Process

	undo []func()
}

// atClose makes Close call f, before the functions that were registered earlier.
func (o *Overlay) atClose(f func()) { o.undo = append(o.undo, f) }

// Close ends the daemons and removes the overlay's state outside of the lab.
func (o *Overlay) Close() {
	for _, p := range o.Daemons {
		p.Kill()
	}
	for i := len(o.undo) - 1; i >= 0; i-- {
		o.undo[i]()
	}
	o.undo = nil
}

// Pids returns the process IDs of the daemons.
func (o *Overlay) Pids() []int {
	pids := make([]int, len(o.Daemons))
	for i, p := range o.Daemons {
		pids[i] = p.Pid()
	}
	return pids
}

// Alive returns an error with the last log line of a daemon that has ended, or nil if all daemons run. It prevents that
// a load runs through what is left of an overlay.
func (o *Overlay) Alive() error {
	for _, p := range o.Daemons {
		select {
		case <-p.Done():
			return fmt.Errorf("driver: the daemon ended: %s", lastLine(p.Logs()))
		default:
		}
	}
	return nil
}

// readyTimeout bounds the time until packets pass through a new overlay.
const readyTimeout = 20 * time.Second

// Ready waits until all other ends reach the first end. Errors are as for until.
func (o *Overlay) Ready(ctx context.Context) error {
	for _, from := range o.Ends[1:] {
		if err := o.reach(ctx, from, o.Ends[0]); err != nil {
			return err
		}
	}
	return nil
}

// reach waits until a ping from one end to another succeeds. Errors are as for until.
func (o *Overlay) reach(ctx context.Context, from, to lab.End) error {
	err := o.until(ctx, func(ctx context.Context) error {
		_, err := from.Run(ctx, "ping", "-n", "-c", "1", "-W", "1", to.Addr.String())
		return err
	})
	if err != nil {
		return fmt.Errorf("driver: no packet passes: %w", err)
	}
	return nil
}

// until calls f until it returns nil, for at most readyTimeout. If a daemon ends, it returns immediately, with an error
// that wraps ErrUnavailable and contains the last log line of the daemon.
func (o *Overlay) until(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err := nettest.Until(ctx, func() error {
		if dead := o.Alive(); dead != nil {
			cancel()
			return dead
		}
		return f(ctx)
	})
	if dead := o.Alive(); dead != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, dead)
	}
	return err
}

// lastLine returns the line of a daemon's log that probably explains why it ended: the last one that is not a hint.
func lastLine(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		line := strings.TrimSpace(lines[i])
		if line != "" && !strings.HasPrefix(line, "hint:") {
			return line
		}
	}
	return "it logged nothing"
}

// Values of Facts.Ends.
const (
	betweenPods  = "pods, each connected by a veth to a bridge on its host"
	betweenHosts = "the hosts themselves: no bridge and no pod in the path, which favors this driver"
)
