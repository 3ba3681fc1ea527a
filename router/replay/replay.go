// Package replay tells datagrams that have come before from those that have not, by their counters alone (RFC 6479:
// the window is a ring of words, and moving it clears words instead of shifting bits).
//
//	  forgotten: refused        within Size of the highest: by its bit       beyond: accepted, the window moves
//	---------------------------|---------------------------------------|-----------------------------------> counter
//	                            highest - Size                          highest
//
// Everything is pure and allocates nothing.
package replay

// Size is how far behind the highest counter one may come and still be told from a repetition. Batches of several
// sockets overtake one another, and a batch is hundreds of datagrams: WireGuard's 8,000 have proven enough.
const Size = 8192

const (
	wordBits = 64
	// words has one more than the window needs, so that the word into which the highest falls is never one that the
	// window still looks at.
	words = Size/wordBits + 1
)

// Window remembers which counters were seen. The zero Window has seen none. It belongs to one goroutine at a time.
type Window struct {
	highest uint64 // 1 + the highest counter accepted, 0 for none
	ring    [words]uint64
}

// Accept reports whether counter is seen for the first time, and remembers it. What lies Size or more behind the highest
// is refused: whether it came before is forgotten. Only counters of datagrams that were authenticated may be given to it.
func (w *Window) Accept(counter uint64) bool {
	next := counter + 1
	if next == 0 {
		return false // the one counter that cannot be counted
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

// advance moves the window so that next is its end: words that it enters anew are those of counters long past.
func (w *Window) advance(next uint64) {
	if w.highest > 0 {
		last, to := (w.highest-1)/wordBits, (next-1)/wordBits
		for i := last + 1; i <= min(to, last+words); i++ {
			w.ring[i%words] = 0
		}
	}
	w.highest = next
}

// Highest returns the highest counter that was accepted, ok = false where there is none.
func (w *Window) Highest() (counter uint64, ok bool) { return w.highest - 1, w.highest > 0 }
