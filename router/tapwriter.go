package router

import (
	"errors"

	"weft/tap"
)

// tapWriter writes frames to the host through one TAP queue. It is owned by the loop of the queue.
type tapWriter struct{ queue tap.Queue }

// write writes frames and returns how many of them the TAP refused. The error is one after which the queue cannot be
// used any more.
func (w tapWriter) write(frames []tap.Frame) (refused int, err error) {
	if len(frames) == 0 {
		return 0, nil
	}
	n, err := w.queue.WriteFrames(frames)
	if err != nil && !errors.Is(err, tap.ErrFrame) {
		return 0, err
	}
	return len(frames) - n, nil
}
