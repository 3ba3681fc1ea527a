package pmtu

import "time"

// remembered is how many probes are remembered, and memory for how long, for answers that come late. A trial has fewer.
const (
	remembered = 32
	memory     = 10 * time.Second
)

// fate is what has become of a probe.
type fate uint8

const (
	waiting fate = iota + 1
	lost         // not acknowledged in time; it may still be
	acked
)

// probe is one that was sent; the zero probe is none.
type probe struct {
	at      time.Time
	token   uint32
	trial   uint32 // for which it was sent
	size    int
	control bool
	fate    fate
}

// history is the ring of the last probes.
type history struct {
	ring [remembered]probe
	next int // where the next one goes: the oldest
}

// add remembers one more and forgets the oldest.
func (h *history) add(s probe) {
	h.ring[h.next] = s
	h.next = (h.next + 1) % remembered
}

// nth returns the nth of the remembered ones, from the oldest.
func (h *history) nth(n int) *probe { return &h.ring[(h.next+n)%remembered] }

// last returns when the last probe was sent, the zero time for never.
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

// expire gives up those that have waited for timeout at now.
func (h *history) expire(now time.Time, timeout time.Duration) {
	for n := range remembered {
		if s := h.nth(n); s.fate == waiting && now.Sub(s.at) >= timeout {
			s.fate = lost
		}
	}
}

// token returns the next token. The generator is splitmix64 (Steele et al., 2014): it never repeats within 2^64 steps,
// and of each only half is shown. Tokens that are still remembered are passed over.
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
