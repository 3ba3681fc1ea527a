// Package replay detects repeated datagrams by their counters (RFC 6479: the window is a ring of words, and moving it
// clears words instead of shifting bits).
//
//	  forgotten: refused        within Size of the highest: by its bit       beyond: accepted, the window moves
//	---------------------------|---------------------------------------|-----------------------------------> counter
//	                            highest - Size                          highest
//
// Everything is pure and allocates nothing.
package replay

// Size is the length of the window: the distance from the highest counter within which repetitions are known. Batches
// of several sockets overtake each other, and a batch has hundreds of datagrams. WireGuard's 8,000 have proven to be
// enough.
const Size = 8192

const (
	wordBits = 64
	// words is one more than the window needs, so that the word of the highest counter is never the oldest word of the
	// window.
	words = Size/wordBits + 1
)

// Window records the counters that were accepted. The zero Window has accepted none. It belongs to one goroutine at a
// time.
type Window struct {
	highest uint64 // 1 + the highest counter accepted, 0 for none
	ring    [words]uint64
}

// Accept reports whether counter is new, and records it. It refuses a counter that is Size or more behind the highest,
// as it may be a repetition. Only counters of authenticated datagrams may be passed to it.
func (w *Window) Accept(counter uint64) bool {
	next := counter + 1
	if next == 0 {
		return false // highest could not represent it
	}
	if next > w.highest {
		w.advance(next)
	} else if w.highest-next >= Size {
		return false
	}
	word, bit := &w.ring[counter/wordBits%words], uint64(1)<<(counter%wordBits)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

// advance moves the window so that next is its end, and clears the words that it enters: they hold old counters.
func (w *Window) advance(next uint64) {
	if w.highest > 0 {
		last, to := (w.highest-1)/wordBits, (next-1)/wordBits
		for i := last + 1; i <= min(to, last+words); i++ {
			w.ring[i%words] = 0
		}
	}
	w.highest = next
}

// Highest returns the highest accepted counter; ok is false if there is none.
func (w *Window) Highest() (counter uint64, ok bool) { return w.highest - 1, w.highest > 0 }
