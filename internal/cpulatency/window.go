package cpulatency

import "time"

// Times of a window. They follow the adaptive halt polling of KVM guests (Documentation/virt/guest-halt-polling.rst in Linux), with
// longer times: a halt poll waits for one reply, a window for the next request as well.
const (
	// minWindow is the shortest window: a frame may have a reply within it.
	minWindow = time.Millisecond
	// maxWindow is the longest one.
	maxWindow = 40 * time.Millisecond
	// maxGap is the longest time without frames after which the next frame still makes windows longer.
	maxGap = maxWindow / 2
)

// window is how long CPUs stay awake after a frame. It grows while frames come at short intervals, and shrinks when they do not: the
// frames of an idle cluster, a few each second, keep CPUs awake for a thousandth of the time. The zero window is ready for use.
type window struct{ length time.Duration }

// opened is called with the first frame after a time without frames. gap is the time since the frame before it.
func (w *window) opened(gap time.Duration) {
	if gap >= 0 && gap <= maxGap {
		w.length = max(w.length, 2*gap)
	} else {
		w.length /= 2
	}
	w.length = min(max(w.length, minWindow), maxWindow)
}

// extended is called when frames have come for the whole window.
func (w *window) extended() { w.length = min(2*w.length, maxWindow) }
