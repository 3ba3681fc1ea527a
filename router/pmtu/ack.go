package pmtu

import "time"

// Acked notes at now that the peer has answered the probe with the given token, of which size bytes have arrived, and
// returns the round trip time. ok is false for an answer that is forged, comes a second time, speaks of another size or is
// of long ago: it changes nothing.
func (p *Prober) Acked(token uint32, size int, now time.Time) (rtt time.Duration, ok bool) {
	s := p.sent.find(token)
	if s == nil || s.size != size || s.fate == acked || now.Sub(s.at) > memory {
		return 0, false
	}
	s.fate = acked
	rtt = max(now.Sub(s.at), 1)
	p.measure(rtt)
	p.silences = 0
	if size >= p.size {
		p.passes(min(size, p.max), now)
	}
	if p.trial.size <= size {
		p.trial.stop()
	}
	return rtt, true
}

// measure smooths round trip times as TCP does (RFC 6298, section 2). An answer names the very probe that it answers,
// so that late ones count as well.
func (p *Prober) measure(rtt time.Duration) {
	if p.rtt == 0 {
		p.rtt = rtt
		return
	}
	p.rtt += (rtt - p.rtt) / 8
}

// passes notes that size, which is not below the present one, has arrived. It may be late: after the trial was
// answered otherwise. Then the answer was wrong, and with it the upper bound.
func (p *Prober) passes(size int, now time.Time) {
	p.confirmed = true
	p.confirmAt = now.Add(confirmEach)
	if size > p.size {
		p.likely, p.named = p.isCommon(size), size == p.hint
		p.size = size
		if !p.searching || p.above <= size {
			p.search(p.max + 1)
		}
	}
	if p.hint <= p.size {
		p.hint = 0
	}
	p.settle(now)
}
