package router

import (
	"errors"
	"sync"

	"weft/tap"
)

// host is the way to the host through one TAP queue. What comes from peers is written by one goroutine; the rare answer
// to a frame of the host's own comes from another, and the lock is for that: otherwise nobody waits for it.
type host struct {
	mu    sync.Mutex
	queue tap.Queue // its writing half is guarded by mu
}

// write hands frames over and returns how many the TAP refused, each of which costs itself only. The error is that of a
// queue that can be used no more.
func (h *host) write(frames []tap.Frame) (lost int, err error) {
	if len(frames) == 0 {
		return 0, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	n, err := h.queue.WriteFrames(frames)
	if err != nil && !errors.Is(err, tap.ErrFrame) {
		return 0, err
	}
	return len(frames) - n, nil
}
