// Package nftwatch follows the changes of tables of nftables, to find out whether another program has changed one.
//
// The kernel numbers the transactions of nftables (the generation) and reports each of them: first the changed objects with the name
// of their table, then the generation. So a program that knows the generations of its own transactions knows, without reading a table,
// whether the table is as it left it. Package nftsum answers the same question by reading the table, which takes longer the larger it is.
package nftwatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/nftsum"
	"weft/internal/signal"
)

// group is the multicast group of nf_tables (NFNLGRP_NFTABLES in linux/netfilter/nfnetlink.h).
const group = 7

// buffer is the size of the socket's buffer, in bytes. A program that replaces ten thousand rules fills some MiB at once.
const buffer = 8 << 20

// maxChanges bounds how many unread changes a Watcher remembers. After more it has lost them.
const maxChanges = 1024

// patience is how long the kernel may take to deliver the report of a transaction that is over.
const patience = 2 * time.Second

// ErrLost means that reports were lost: the tables may have changed.
var ErrLost = errors.New("nftwatch: the kernel dropped reports of changes")

// Watcher follows the tables of one name in one network namespace. Its methods may be called concurrently.
type Watcher struct {
	conn     *netlink.Conn
	table    string
	families []nftsum.Family
	changed  signal.Chan
	ended    chan struct{} // closed when the goroutine has returned

	mu      sync.Mutex
	seen    uint32        // guarded by mu; the latest generation
	changes []uint32      // guarded by mu; generations that changed a table
	lost    bool          // guarded by mu; reports were lost since Reset
	err     error         // guarded by mu; of the socket
	news    chan struct{} // guarded by mu; closed when any of these changes
}

// Open starts to follow the tables of a name in some families, in the network namespace of the calling thread. The caller must close the
// Watcher.
func Open(table string, families ...nftsum.Family) (*Watcher, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("nftwatch: netlink: %w", err)
	}
	w := &Watcher{
		conn: conn, table: table, families: families, changed: signal.New(), ended: make(chan struct{}), news: make(chan struct{}),
	}
	_ = conn.SetReadBuffer(buffer) // with the default, more reports are lost
	if err := conn.JoinGroup(group); err != nil {
		return nil, errors.Join(fmt.Errorf("nftwatch: subscribe to changes: %w", err), conn.Close())
	}
	if w.seen, err = Generation(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	go w.run()
	return w, nil
}

// Close stops the Watcher.
func (w *Watcher) Close() error {
	err := w.conn.Close()
	<-w.ended
	if errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}

// Wait waits until ctx ends, or until the Watcher cannot go on: then it returns why.
func (w *Watcher) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-w.ended:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Changed returns the channel of wake-ups: one for each transaction that changed a table, also for those of this program, and one when
// reports were lost. Wake-ups that precede a receive are merged. It is never closed.
func (w *Watcher) Changed() <-chan struct{} { return w.changed.C() }

// Reset forgets all changes so far.
func (w *Watcher) Reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changes, w.lost = nil, false
}

// Forget forgets the changes up to a generation.
func (w *Watcher) Forget(generation uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for n < len(w.changes) && !after(w.changes[n], generation) {
		n++
	}
	w.changes = w.changes[n:]
}

// Count returns how many transactions up to a generation, which must have been reached, changed a table. It waits for their reports. The
// error wraps ErrLost if the number is unknown.
func (w *Watcher) Count(ctx context.Context, generation uint32) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		w.mu.Lock()
		news, lost, err, behind := w.news, w.lost, w.err, after(generation, w.seen)
		n = 0
		for _, g := range w.changes {
			if !after(g, generation) {
				n++
			}
		}
		w.mu.Unlock()
		switch {
		case err != nil:
			return 0, err
		case lost:
			return 0, ErrLost
		case !behind:
			return n, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: no report of generation %d: %w", ErrLost, generation, ctx.Err())
		case <-news:
		}
	}
}

// after reports whether generation a is later than b. The numbers wrap around.
func after(a, b uint32) bool { return int32(a-b) > 0 }

// run reads reports until the socket is closed.
func (w *Watcher) run() {
	defer close(w.ended)
	touched := false // by the transaction that is being reported
	for {
		messages, err := w.conn.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			touched = false
			w.update(func() { w.lost = true })
			w.changed.Set()
			continue
		}
		if err != nil {
			w.update(func() { w.err = fmt.Errorf("nftwatch: %w", err) })
			return
		}
		for _, m := range messages {
			if m.Header.Type != newGeneration {
				touched = touched || w.concerns(m)
				continue
			}
			generation, ok := generationOf(m)
			if !ok {
				continue
			}
			w.update(func() { w.add(generation, touched) })
			if touched {
				w.changed.Set()
			}
			touched = false
		}
	}
}

// add records a transaction. The caller holds mu.
func (w *Watcher) add(generation uint32, touched bool) {
	if touched {
		w.changes = append(w.changes, generation)
	}
	if len(w.changes) > maxChanges {
		w.changes, w.lost = nil, true
	}
	if !after(generation, w.seen) {
		return // from before Open
	}
	// After the kernel has dropped a report, it drops further ones until the socket is empty, without another error.
	w.lost = w.lost || generation != successor(w.seen)
	w.seen = generation
}

// successor returns the generation after another: numbers wrap around, and none is 0.
func successor(generation uint32) uint32 {
	if generation++; generation == 0 {
		generation++
	}
	return generation
}

// update changes guarded fields, and wakes Count.
func (w *Watcher) update(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.news)
	w.news = make(chan struct{})
}

// concerns reports whether a message is about an object of the tables.
func (w *Watcher) concerns(m netlink.Message) bool {
	table, ok := TableOf(m)
	return ok && table.Name == w.table && slices.Contains(w.families, table.Family)
}
