// Package driver brings overlays up on a lab: weft in its modes, the kernel's VXLAN, other daemons, and none at all.
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

// Driver is a way of carrying traffic between the ends of a lab. A driver is used by one goroutine at a time.
type Driver interface {
	// Name is what --drivers takes.
	Name() string
	// Summary is a sentence for people.
	Summary() string
	// Prepare fetches and builds what Up needs; it is called once in a run, before all rounds. Its error says why the driver
	// is not available.
	Prepare(ctx context.Context, t *Tools) error
	// Up brings the overlay up on a lab that has nothing in it yet. It need not wait until packets pass. The overlay is closed
	// before the lab, also when Up fails and returns one. An error that wraps ErrUnavailable is of this
	// machine or this version and not of the run.
	Up(ctx context.Context, l *lab.Lab) (*Overlay, error)
}

// ErrUnavailable marks what cannot be measured here.
var ErrUnavailable = errors.New("not available")

// Overlay is what a driver has brought up.
type Overlay struct {
	// Ends are where loads run, in the order of the lab's.
	Ends []lab.End
	// Facts describe it.
	Facts sample.Facts
	// Daemons carry its traffic; empty where the kernel does.
	Daemons []*nettest.Process

	undo []func()
}

// atClose has f called by Close, before what was registered earlier.
func (o *Overlay) atClose(f func()) { o.undo = append(o.undo, f) }

// Close ends the daemons and removes what the overlay left outside of the lab.
func (o *Overlay) Close() {
	for _, p := range o.Daemons {
		p.Kill()
	}
	for i := len(o.undo) - 1; i >= 0; i-- {
		o.undo[i]()
	}
	o.undo = nil
}

// Pids returns the daemons' process numbers.
func (o *Overlay) Pids() []int {
	pids := make([]int, len(o.Daemons))
	for i, p := range o.Daemons {
		pids[i] = p.Pid()
	}
	return pids
}

// Alive returns an error with the last words of a daemon that has ended. Without this a load might run through what
// another daemon left behind.
func (o *Overlay) Alive() error {
	for _, p := range o.Daemons {
		select {
		case <-p.Done():
			return fmt.Errorf("driver: the daemon ended: %s", lastWords(p.Logs()))
		default:
		}
	}
	return nil
}

// patience is how long an overlay may take until packets pass.
const patience = 20 * time.Second

// Ready waits until the first end is reached from all others. It ends as until does.
func (o *Overlay) Ready(ctx context.Context) error {
	for _, from := range o.Ends[1:] {
		if err := o.reach(ctx, from, o.Ends[0]); err != nil {
			return err
		}
	}
	return nil
}

// reach waits until one end is reached from another. It ends as until does.
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

// until calls f until it returns nil. It ends at once when a daemon does: then the error wraps ErrUnavailable, with what the daemon
// said last.
func (o *Overlay) until(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
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

// lastWords returns the line of a daemon's log that says best why it ended: the last one that is not a hint.
func lastWords(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		line := strings.TrimSpace(lines[i])
		if line != "" && !strings.HasPrefix(line, "hint:") {
			return line
		}
	}
	return "it said nothing"
}

// between are the sentences of Facts.Ends.
const (
	betweenPods  = "pods, each joined by a veth to a bridge on its host"
	betweenHosts = "the hosts themselves: no bridge and no pod on the way, which flatters it"
)
