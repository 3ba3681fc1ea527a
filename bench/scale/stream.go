package scale

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"weft/internal/signal"
)

// segment is the payload of a TCP segment, in bytes.
const segment = 1448

// stream is one end of a stream between two hosts.
type stream struct {
	local, remote *host
	in, out       *pipe
}

var _ net.Conn = (*stream)(nil)

// newStream returns the two ends of a stream that the host near has opened.
func newStream(near, far *host) (nearEnd, farEnd *stream) {
	forth, back := newPipe(), newPipe()
	return &stream{near, far, back, forth}, &stream{far, near, forth, back}
}

// Read implements net.Conn.
func (s *stream) Read(b []byte) (int, error) { return s.in.read(b) }

// Write implements net.Conn. It does not wait: the window of a stream has no bound here.
func (s *stream) Write(b []byte) (int, error) {
	s.local.streamBytes.Add(uint64(len(b)))
	delay, arrives := time.Duration(0), s.local.reaches(s.remote)
	for range max(1, (len(b)+segment-1)/segment) {
		took, lost := s.local.decide()
		if lost {
			took += retransmitTimeout
		}
		delay = max(delay, took)
	}
	return s.out.write(b, delay, arrives)
}

// Close implements net.Conn.
func (s *stream) Close() error {
	s.in.stop()
	delay, _ := s.local.decide()
	s.out.end(delay, s.local.reaches(s.remote))
	return nil
}

// LocalAddr implements net.Conn.
func (s *stream) LocalAddr() net.Addr { return s.local.tcp }

// RemoteAddr implements net.Conn.
func (s *stream) RemoteAddr() net.Addr { return s.remote.tcp }

// SetDeadline implements net.Conn. Writes do not wait.
func (s *stream) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetReadDeadline implements net.Conn.
func (s *stream) SetReadDeadline(t time.Time) error {
	s.in.setDeadline(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (s *stream) SetWriteDeadline(time.Time) error { return nil }

// pipe is one direction of a stream, with the delay of the network.
type pipe struct {
	wake signal.Chan // set when the reader shall look again

	mu       sync.Mutex
	arrivals []arrival // guarded by mu: in the order in which they are due
	deadline time.Time // guarded by mu: of the reader; zero: none
	ended    bool      // guarded by mu: the writer has closed its end
	stopped  bool      // guarded by mu: the reader has closed its end
	stalled  bool      // guarded by mu: something got lost in a partition, and the rest waits for it
}

// arrival is data that reaches the reader at a time; no data is the end of the stream.
type arrival struct {
	due  time.Time
	data []byte
}

func newPipe() *pipe { return &pipe{wake: signal.New()} }

func (p *pipe) read(b []byte) (int, error) {
	for {
		n, wait, err := p.take(b)
		if n > 0 || err != nil {
			return n, err
		}
		if wait <= 0 {
			<-p.wake.C()
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-p.wake.C():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// take reads what is due. Where nothing is, wait is how long until that changes without a wake-up; 0: it does not.
func (p *pipe) take(b []byte) (n int, wait time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	switch {
	case p.stopped:
		return 0, 0, net.ErrClosed
	case !p.deadline.IsZero() && !p.deadline.After(now):
		return 0, 0, os.ErrDeadlineExceeded
	case len(p.arrivals) > 0 && !p.arrivals[0].due.After(now):
		first := &p.arrivals[0]
		if len(first.data) == 0 {
			return 0, 0, io.EOF
		}
		n = copy(b, first.data)
		if first.data = first.data[n:]; len(first.data) == 0 {
			p.arrivals = p.arrivals[1:]
		}
		return n, 0, nil
	case len(p.arrivals) > 0:
		wait = p.arrivals[0].due.Sub(now)
	}
	if left := p.deadline.Sub(now); !p.deadline.IsZero() && (wait == 0 || left < wait) {
		wait = left
	}
	return 0, wait, nil
}

// write adds data, which arrives after delay or not at all.
func (p *pipe) write(b []byte, delay time.Duration, arrives bool) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ended:
		return 0, net.ErrClosed
	case p.stopped:
		return 0, syscall.EPIPE
	case len(b) > 0:
		p.add(append([]byte(nil), b...), delay, arrives)
	}
	return len(b), nil
}

// end adds the end of the stream.
func (p *pipe) end(delay time.Duration, arrives bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.ended = true
		p.add(nil, delay, arrives)
	}
}

// add adds data behind what is there; mu is held.
func (p *pipe) add(data []byte, delay time.Duration, arrives bool) {
	if p.stalled = p.stalled || !arrives; p.stalled {
		return
	}
	due := time.Now().Add(delay)
	if last := len(p.arrivals) - 1; last >= 0 && p.arrivals[last].due.After(due) {
		due = p.arrivals[last].due
	}
	p.arrivals = append(p.arrivals, arrival{due, data})
	p.wake.Set()
}

// stop ends the reader.
func (p *pipe) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped, p.arrivals = true, nil
	p.wake.Set()
}

func (p *pipe) setDeadline(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deadline = t
	p.wake.Set()
}
