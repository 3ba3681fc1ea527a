package pmtu

import "time"

// Next returns the size in bytes and the token of a probe to send now; ok is false if there is none. The probe counts
// as sent. There are at most five a second.
func (p *Prober) Next(now time.Time) (size int, token uint32, ok bool) {
	p.sent.expire(now, p.timeout())
	t := p.advance(now)
	if p.trial.size == 0 {
		return 0, 0, false
	}
	size, control, ok := p.wants(t)
	if !ok || now.Before(p.sent.last().Add(gap)) {
		return 0, 0, false
	}
	token = p.token()
	p.sent.add(probe{at: now, token: token, trial: p.trial.serial, size: size, control: control, fate: waiting})
	return size, token, true
}

// Deadline returns when to call Next again; the zero time means not before another method was called. An earlier call
// does no harm.
func (p *Prober) Deadline() time.Time {
	if p.trial.size == 0 {
		return p.begins()
	}
	t := p.count()
	var at time.Time
	if _, _, ok := p.wants(t); ok {
		at = p.sent.last().Add(gap)
	}
	for n := range remembered {
		if s := p.sent.nth(n); s.fate == waiting && s.trial == p.trial.serial {
			at = earlier(at, s.at.Add(p.timeout()))
			break // the others were sent later
		}
	}
	return at
}

// earlier returns the earlier of two times; the zero time stands for none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// advance ends the trial if it has a verdict, begins the next one if one is due, and tallies it.
func (p *Prober) advance(now time.Time) tally {
	if p.trial.size != 0 {
		t := p.count()
		switch p.judge(t) {
		case undecided:
			return t
		case fails:
			p.tooLarge(p.trial.size, now)
		case silence:
			p.silent(now)
		}
		p.trial.stop()
	}
	if at := p.begins(); at.IsZero() || now.Before(at) {
		return tally{}
	}
	p.begin(now)
	return tally{}
}

// begins returns when to begin a trial; the zero time means not before there is traffic.
func (p *Prober) begins() time.Time {
	switch {
	case p.silences > 0 && p.traffic:
		return p.retryAt
	case p.silences > 0:
		return time.Time{}
	case p.searching:
		return p.sent.last().Add(gap)
	case p.traffic: // the first one begins at once, as its time is long past
		return later(p.confirmAt, p.sent.last().Add(gap))
	default:
		return time.Time{}
	}
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// begin begins the trial that is due. The present size is confirmed first, also during a search.
func (p *Prober) begin(now time.Time) {
	size := p.size
	if p.silences > 0 || !now.Before(p.confirmAt) {
		p.traffic = false
		if !p.searching && p.confirmed && p.size < p.max && !now.Before(p.raiseAt) {
			p.likely, p.named = true, false
			p.search(p.max + 1)
		}
	} else {
		size = p.candidate()
	}
	p.trial = trial{serial: p.trial.serial + 1, size: size, need: lossesOtherwise, silent: silentControls}
	if p.confirmed && size == p.size {
		p.trial.need = lossesConfirmed
	}
	p.trial.hasty = !p.confirmed || p.silences > 0
	if p.silences > 0 {
		p.trial.silent = 1
	}
}

// silent records that nothing was acknowledged. The size does not change, as this is no information about sizes.
func (p *Prober) silent(now time.Time) {
	p.retryAt = now.Add(min(firstSilence<<min(p.silences, 8), maxSilence))
	p.silences++
}

// tooLarge records that size does not pass although Base does. For the present size this is a black hole.
func (p *Prober) tooLarge(size int, now time.Time) {
	if size <= p.size {
		p.size = p.effectiveBase()
		p.confirmed, p.likely, p.named = true, false, false
		p.confirmAt = now.Add(confirmEach)
		p.pause = firstRaise
		p.search(size)
	}
	p.above = size
	p.finishSearch(now)
}
