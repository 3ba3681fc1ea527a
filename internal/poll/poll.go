// Package poll waits for several sources in one goroutine: descriptors of the kernel, or parts in memory that take their place in
// tests.
//
// The datapath does not wait in the runtime's poller. Each of its loops waits for a TAP queue and a socket at once, in the kernel:
// a frame wakes the thread of the loop and no other. See docs/adr/0045-one-loop-a-queue.md.
package poll

import "reflect"

// Source is something that can be read without waiting, and that becomes ready when there may be something to read, or when it is
// closed. A source may become ready without a cause. Make it with File.Source or FromChan.
type Source struct {
	file  *File           // nil: a part in memory
	ready <-chan struct{} // holds a token while there may be something to read; at the end too
}

// FromChan returns the source of a part in memory. The channel holds a token, and is not closed, while there may be something to read,
// and after the part is closed.
func FromChan(ready <-chan struct{}) Source { return Source{ready: ready} }

// Wait waits until s is ready.
func (s Source) Wait() error {
	if s.file == nil {
		<-s.ready
		return nil
	}
	return s.file.wait()
}

// Poller waits for sources. One goroutine owns it.
type Poller struct {
	kernel *epoll // nil: the sources are in memory
	memory []reflect.SelectCase
}

// Wait waits until a source may be ready.
func (p *Poller) Wait() error {
	if p.kernel != nil {
		return p.kernel.wait()
	}
	reflect.Select(p.memory)
	return nil
}

// Close releases the poller. Its sources remain open.
func (p *Poller) Close() error {
	if p.kernel == nil {
		return nil
	}
	return p.kernel.close()
}
