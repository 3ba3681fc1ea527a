package pmtu

import "time"

// Acked records at now that the peer acknowledged size bytes of the probe with the given token, and returns the
// round-trip time. ok is false for a reply that is forged, repeated or old, or has another size: it changes nothing.
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

// measure smooths round-trip times as TCP does (RFC 6298, section 2). A reply identifies its probe, so late replies
// count as well.
func (p *Prober) measure(rtt time.Duration) {
	if p.rtt == 0 {
		p.rtt = rtt
		return
	}
	p.rtt += (rtt - p.rtt) / 8
}

// passes records that size, which is not below the present size, arrived. It may come after the trial ended with
// another verdict; then the verdict was wrong, and so is the upper bound.
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
	p.finishSearch(now)
}
