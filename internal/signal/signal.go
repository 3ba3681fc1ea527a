// Package signal provides a wake-up for a goroutine that waits in a select statement.
package signal

// Chan wakes one receiver. Calls of Set that come before the receiver runs are merged into one wake-up, so a sender
// never blocks and the receiver must look at the current state, not count the wake-ups.
//
// Make it with New; the zero Chan never wakes anything. A Chan is a reference: copies of it share their state. Its
// methods may be called concurrently.
type Chan struct {
	c chan struct{} // of capacity 1
}

// New returns a Chan that is not set.
func New() Chan { return Chan{make(chan struct{}, 1)} }

// Set wakes the receiver, now or at its next receive from C. It does not block.
func (c Chan) Set() {
	select {
	case c.c <- struct{}{}:
	default: // set already
	}
}

// C returns the channel to receive from. A receive consumes the wake-up. The channel is never closed.
func (c Chan) C() <-chan struct{} { return c.c }
