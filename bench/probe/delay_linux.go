package probe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/bench/lab"
	"weft/tap"
)

// Interfaces of a delay line, in the namespace of the switch.
const (
	delayNear = "delay0"
	delayFar  = "delay1"
)

// delayDepth is the most superframes that a delay line holds in each direction; further ones are lost.
const delayDepth = 1 << 15

// DelayLine makes packets between the first host of the lab and the others arrive later by delay, in each direction, as over a long
// cable, until stop is called. The kernel's netem would do it where it is available. The line costs CPU time, the same for each driver:
// figures with it are only comparable among themselves.
func DelayLine(ctx context.Context, l *lab.Lab, delay time.Duration) (stop func(context.Context) error, err error) {
	c, err := start(lab.End{Space: l.Switch()}, "delay")
	if err != nil {
		return nil, err
	}
	if _, err := c.ask(ctx, request{Length: delay}); err != nil {
		c.close()
		return nil, err
	}
	if err := l.InsertLine(ctx, delayNear, delayFar); err != nil {
		c.close()
		return nil, errors.Join(err, l.RemoveLine(context.WithoutCancel(ctx)))
	}
	return func(ctx context.Context) error {
		err := l.RemoveLine(ctx)
		c.close()
		return err
	}, nil
}

// delayPackets is the child of DelayLine.
func delayPackets(s *stream) error {
	r, err := s.next()
	if err != nil {
		return err
	}
	near, err := tap.Open(tap.Config{Name: delayNear, MTU: 1500, Queues: 1})
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	far, err := tap.Open(tap.Config{Name: delayFar, MTU: 1500, Queues: 1})
	if err != nil {
		return errors.Join(fmt.Errorf("probe: %w", err), near.Close())
	}
	var group errgroup.Group
	ends := func(err error) error { return errors.Join(err, near.Close(), far.Close()) } // an error of one part ends the others
	for _, d := range []direction{{near, far, r.Length}, {far, near, r.Length}} {
		line := make(chan delayed, delayDepth)
		group.Go(func() error { return ends(d.read(line)) })
		group.Go(func() error { return ends(d.write(line)) })
	}
	if err := s.reply(answer{}); err != nil {
		return ends(err)
	}
	return group.Wait() // until the process is killed
}

// direction is one direction of a delay line.
type direction struct {
	from, to tap.Device
	delay    time.Duration
}

// delayed is a frame on its way.
type delayed struct {
	due   time.Time
	frame tap.Frame
}

// read puts the frames of a device on the line.
func (d direction) read(line chan<- delayed) error {
	defer close(line)
	queue, batch := d.from.Queues()[0], tap.NewBatch(4*tap.MaxFrame, 64, 0, 0)
	for {
		if err := queue.Source().Wait(); err != nil {
			return err
		}
		batch.Reset()
		if _, err := queue.ReadFrames(batch); err != nil {
			return err
		}
		due := time.Now().Add(d.delay)
		for _, f := range batch.Frames() {
			f.Data = append([]byte(nil), f.Data...)
			select {
			case line <- delayed{due, f}:
			default: // full
			}
		}
	}
}

// write writes the frames of the line to a device when they are due.
func (d direction) write(line <-chan delayed) error {
	queue := d.to.Queues()[0]
	for f := range line {
		time.Sleep(time.Until(f.due))
		if _, err := queue.WriteFrames([]tap.Frame{f.frame}); err != nil && !errors.Is(err, tap.ErrFrame) {
			return err
		}
	}
	return nil
}
