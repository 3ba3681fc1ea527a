package pmtu

import "time"

// Losses that a trial needs after the first control probe that was acknowledged; one was lost before.
//
// A probe is lost when it or its answer is: with 5 % of all datagrams lost that is one in ten. A confirmation takes place
// 43,200 times a day, so that three losses in a row would shrink the size of a good path forty times a day; eight do
// so once in eight years. A search asks a dozen times in five minutes, and may be wrong until the next: three are
// enough, and make it short.
const (
	lossesConfirmed = 7
	lossesOtherwise = 2
)

const (
	controlEach    = 4 // large probes to a control probe
	lossesPerLoss  = 2 // further losses needed for a control probe that was lost: the path loses others as well
	maxLossy       = 3 // control probes for which that is done
	silentControls = 2 // control probes lost in a row by which the peer counts as silent
	silentBase     = 3 // probes of Base lost by which the peer counts as silent, where there is nothing to search
)

// trial is the question whether one size passes. The answer yes is a single acknowledgement; no takes several losses,
// and control probes that pass at the same time.
type trial struct {
	serial uint32 // names the trial in the history
	size   int    // what is asked for; 0: no trial is under way
	need   int    // losses after the first control probe that passes
	// hasty: the first control probe does not wait until the first large one is lost, as it is not known how long
	// that takes, or whether there is a peer at all.
	hasty  bool
	silent int // control probes lost in a row by which the peer counts as silent
}

func (t *trial) stop() { t.size = 0 }

// verdict is the answer of a trial, as far as it comes from losses.
type verdict uint8

const (
	undecided verdict = iota
	fails             // the size does not pass, though smaller ones do
	silence           // nothing passes
)

// tally is what has become of the probes of a trial.
type tally struct {
	large, largeLost int // large probes, those lost
	open             int // large probes that wait
	controls         int // control probes
	controlsLost     int
	deaf             int  // control probes lost in a row, at the end
	controlOpen      bool // a control probe waits
	passed           bool // the last control probe that does not wait passed
	sinceControl     int  // large probes sent after the last control probe
	counted          int  // large probes after the first control probe that is not lost
}

// count tallies the probes of p's trial.
func (p *Prober) count() (t tally) {
	anchored := false
	for n := range remembered {
		s := p.sent.nth(n)
		switch {
		case s.fate == 0 || s.trial != p.trial.serial:
		case s.control:
			t.countControl(s.fate)
			anchored = anchored || s.fate != lost
		default:
			t.large++
			t.sinceControl++
			if anchored {
				t.counted++
			}
			if s.fate == lost {
				t.largeLost++
			} else {
				t.open++
			}
		}
	}
	return t
}

func (t *tally) countControl(f fate) {
	t.controls++
	t.sinceControl = 0
	switch f {
	case waiting:
		t.controlOpen = true
	case lost:
		t.controlsLost++
		t.deaf++
		t.passed = false
	default:
		t.deaf = 0
		t.passed = true
	}
}

// need returns how many counted losses the answer no takes.
func (p *Prober) need(t tally) int {
	return p.trial.need + lossesPerLoss*min(t.controlsLost, maxLossy)
}

// judge returns the answer of the trial as it stands.
func (p *Prober) judge(t tally) verdict {
	switch {
	case t.open > 0 || t.controlOpen || t.large == 0:
		return undecided
	case p.trial.size <= p.effectiveBase():
		if t.largeLost >= min(silentBase, p.trial.silent+1) {
			return silence
		}
	case t.deaf >= p.trial.silent:
		return silence
	case t.passed && t.counted >= p.need(t):
		return fails
	}
	return undecided
}

// wants returns the size of the probe that the trial wants to send next, ok = false if it waits for answers.
func (p *Prober) wants(t tally) (size int, control, ok bool) {
	base := p.effectiveBase()
	switch {
	case t.large == 0:
		return p.trial.size, false, true
	case p.trial.size <= base:
		return p.trial.size, false, t.open == 0
	case t.controls == 0:
		return base, true, t.largeLost > 0 || p.trial.hasty
	case t.controlOpen && t.deaf > 0, t.largeLost == 0, t.deaf >= p.trial.silent:
		return 0, false, false
	case t.deaf > 0, t.sinceControl >= controlEach && t.counted < p.need(t):
		return base, true, !t.controlOpen
	default:
		return p.trial.size, false, t.counted < p.need(t)
	}
}

// timeout returns how long an answer is waited for (RFC 8899, section 5.1.1, PROBE_TIMER). An answer that comes later
// counts all the same.
func (p *Prober) timeout() time.Duration {
	if p.rtt == 0 {
		return firstTimeout
	}
	return min(max(3*p.rtt, minTimeout), maxTimeout)
}
