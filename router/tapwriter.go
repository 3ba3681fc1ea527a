package router

import (
	"errors"
	"sync"

	"weft/tap"
)

// tapWriter writes frames to the host through one TAP queue. Frames from peers are written by one goroutine. The rare
// replies to the host's own frames are written by another one, for which there is the lock; otherwise it is
// uncontended.
type tapWriter struct {
	mu    sync.Mutex
	queue tap.Queue // its writing half is guarded by mu
}

// write writes frames and returns how many of them the TAP refused. The error is one after which the queue cannot be
// used any more.
func (w *tapWriter) write(frames []tap.Frame) (refused int, err error) {
	if len(frames) == 0 {
		return 0, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.queue.WriteFrames(frames)
	if err != nil && !errors.Is(err, tap.ErrFrame) {
		return 0, err
	}
	return len(frames) - n, nil
}
