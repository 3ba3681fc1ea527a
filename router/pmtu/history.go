package pmtu

import "time"

// remembered is the number of probes in the history, and memory how long they stay there, for late replies. A trial has
// fewer probes.
const (
	remembered = 32
	memory     = 10 * time.Second
)

// fate is the outcome of a probe.
type fate uint8

const (
	waiting fate = iota + 1
	lost         // not acknowledged in time, but may still be
	acked
)

// probe is a sent probe; the zero probe is none.
type probe struct {
	at      time.Time
	token   uint32
	trial   uint32 // the trial that it belongs to
	size    int
	control bool
	fate    fate
}

// history is the ring of the last probes.
type history struct {
	ring [remembered]probe
	next int // index of the next one, which is the oldest
}

// add adds a probe in place of the oldest one.
func (h *history) add(s probe) {
	h.ring[h.next] = s
	h.next = (h.next + 1) % remembered
}

// nth returns the nth probe, counted from the oldest.
func (h *history) nth(n int) *probe { return &h.ring[(h.next+n)%remembered] }

// last returns when the last probe was sent, the zero time if none was.
func (h *history) last() time.Time { return h.nth(remembered - 1).at }

// find returns the probe with the given token, or nil.
func (h *history) find(token uint32) *probe {
	for n := range remembered {
		if s := h.nth(n); s.fate != 0 && s.token == token {
			return s
		}
	}
	return nil
}

// expire marks the probes as lost that have waited for timeout at now.
func (h *history) expire(now time.Time, timeout time.Duration) {
	for n := range remembered {
		if s := h.nth(n); s.fate == waiting && now.Sub(s.at) >= timeout {
			s.fate = lost
		}
	}
}

// token returns the next token. The generator is splitmix64 (Steele et al., 2014), which never repeats within 2^64
// steps; a token is half of its output. Tokens that are in the history are skipped.
func (p *Prober) token() uint32 {
	for {
		p.tokens += 0x9e3779b97f4a7c15
		z := p.tokens
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		if token := uint32((z ^ z>>31) >> 32); p.sent.find(token) == nil {
			return token
		}
	}
}
