package router

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"weft/internal/poll"
	"weft/router/underlay"
	"weft/tap"
)

// loop carries the frames of one TAP queue and one socket, in both directions, to completion: what it has received is written to the
// TAP, and what the pods answered is sent, before it receives again. One goroutine owns it, which waits in the kernel and so mostly
// stays on its thread.
//
// See docs/adr/0045-one-loop-a-queue.md.
type loop struct {
	in     *inbound // nil: the socket is that of another loop
	out    *outbound
	poller *poll.Poller
}

// newLoops returns the loops of all queues.
func (e *Engine) newLoops() (loops []*loop, err error) {
	for i, q := range e.device.Queues() {
		l, err := newLoop(e, q, e.conns[i%len(e.conns)], i < len(e.conns))
		if err != nil {
			for _, l := range loops {
				err = errors.Join(err, l.close())
			}
			return nil, err
		}
		loops = append(loops, l)
	}
	return loops, nil
}

// newLoop returns the loop of a queue. c is the socket to which it sends. It is also that from which it receives if receives is set.
func newLoop(e *Engine, q tap.Queue, c underlay.Conn, receives bool) (*loop, error) {
	w := tapWriter{queue: q}
	l := &loop{out: newOutbound(e, q, w, c)}
	sources := []poll.Source{q.Source()}
	if receives {
		l.in = newInbound(e, c, w)
		sources = append(sources, c.Source())
	}
	var err error
	if l.poller, err = poll.New(sources...); err != nil {
		return nil, errors.Join(fmt.Errorf("router: %w", err), l.free())
	}
	return l, nil
}

// close releases what the loop has, besides its queue and its socket.
func (l *loop) close() error { return errors.Join(l.poller.Close(), l.free()) }

// free frees the arena of what arrives.
func (l *loop) free() error {
	if l.in == nil {
		return nil
	}
	return l.in.arena.Free()
}

// The Go scheduler takes a goroutine that it has not run anew for 10 ms for one that hogs its processor: its monitor then takes the
// processor away in each system call, and wakes up every 20 µs to do so (runtime/proc.go, sysmon and retake). A busy loop mostly waits
// less than that, so it yields now and then: when it has waited yieldWaits times, and yieldAfter has passed.
const (
	yieldAfter = 5 * time.Millisecond
	yieldWaits = 32
)

// run carries frames until the queue or the socket is closed.
func (l *loop) run() error {
	yielded, waits := time.Now(), 0
	for {
		more, err := l.step()
		if err == nil && !more {
			if waits++; waits >= yieldWaits && time.Since(yielded) >= yieldAfter {
				yielded, waits = time.Now(), 0
				runtime.Gosched()
			}
			err = l.poller.Wait()
		}
		if err != nil {
			return errors.Join(err, l.close())
		}
	}
}

// noteFrames notes that a batch of frames is carried.
func (e *Engine) noteFrames(now time.Time) {
	if e.activity != nil {
		e.activity.NoteFrames(now)
	}
}

// step carries at most one batch in each direction. It reports whether there may be more.
func (l *loop) step() (more bool, err error) {
	if l.in != nil {
		if more, err = l.in.step(); err != nil {
			return false, fmt.Errorf("router: from the underlay: %w", err)
		}
	}
	sent, err := l.out.step()
	if err != nil {
		return false, fmt.Errorf("router: from the TAP: %w", err)
	}
	return more || sent, nil
}
