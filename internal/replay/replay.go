// Package replay detects repeated datagrams by their counters (RFC 6479: the window is a ring of words, and moving it
// clears words instead of shifting bits).
//
//	  forgotten: refused        within the size of the highest: by its bit   beyond: accepted, the window moves
//	---------------------------|---------------------------------------|-----------------------------------> counter
//	                            highest - size                          highest
//
// Everything is pure and allocates nothing.
package replay

// Size is the length of a Window: the distance from the highest counter within which repetitions are known. WireGuard's 8,000 have proven
// to be enough where one goroutine reads all datagrams of a sender.
//
// WideSize is that of a Wide, for datagrams that several sockets receive at once: those that wait in one of them, while its reader waits
// for its core, are overtaken by all others. 32,768 are 8 ms at 4 million datagrams a second.
const (
	Size     = 8192
	WideSize = 32768
)

const wordBits = 64

// ring is the words of a window: one more than it needs, so that the word of the highest counter is never the oldest word of the window.
type ring interface {
	[Size/wordBits + 1]uint64 | [WideSize/wordBits + 1]uint64
}

// Window records the counters that were accepted. The zero Window has accepted none. It belongs to one goroutine at a
// time.
type Window = window[[Size/wordBits + 1]uint64]

// Wide is a Window with WideSize.
type Wide = window[[WideSize/wordBits + 1]uint64]

type window[R ring] struct {
	highest uint64 // 1 + the highest counter accepted, 0 for none
	ring    R
}

// size returns the length of the window.
func (w *window[R]) size() uint64 { return uint64(len(w.ring)-1) * wordBits }

// Accept reports whether counter is new, and records it. It refuses a counter that is the size of the window or more behind the highest,
// as it may be a repetition. Only counters of authenticated datagrams may be passed to it.
func (w *window[R]) Accept(counter uint64) bool {
	next := counter + 1
	if next == 0 {
		return false // highest could not represent it
	}
	if next > w.highest {
		w.advance(next)
	} else if w.highest-next >= w.size() {
		return false
	}
	at, bit := counter/wordBits%uint64(len(w.ring)), uint64(1)<<(counter%wordBits)
	if w.ring[at]&bit != 0 {
		return false
	}
	w.ring[at] |= bit
	return true
}

// advance moves the window so that next is its end, and clears the words that it enters: they hold old counters.
func (w *window[R]) advance(next uint64) {
	if w.highest > 0 {
		words := uint64(len(w.ring))
		last, to := (w.highest-1)/wordBits, (next-1)/wordBits
		for i := last + 1; i <= min(to, last+words); i++ {
			w.ring[i%words] = 0
		}
	}
	w.highest = next
}

// Highest returns the highest accepted counter; ok is false if there is none.
func (w *window[R]) Highest() (counter uint64, ok bool) { return w.highest - 1, w.highest > 0 }
