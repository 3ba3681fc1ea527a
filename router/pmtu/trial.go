package pmtu

import "time"

// Losses that a trial needs after its first acknowledged control probe; one was lost before.
//
// A probe counts as lost if it or its reply is lost: with a loss of 5 % of all datagrams that is one in ten. There are
// 43,200 confirmations a day. If three losses in a row were enough, they would shrink the size of a good path forty
// times a day; eight losses do so once in eight years. A search has a dozen trials in five minutes, and a wrong result
// lasts until the next search: three losses are enough, and keep it short.
const (
	lossesConfirmed = 7
	lossesOtherwise = 2
)

const (
	controlEach    = 4 // large probes for each control probe
	lossesPerLoss  = 2 // further losses needed for each lost control probe, as the path loses other datagrams as well
	maxLossy       = 3 // most control probes for which lossesPerLoss counts
	silentControls = 2 // control probes lost in a row after which the peer counts as silent
	silentBase     = 3 // lost probes of Base after which the peer counts as silent, if there is nothing to search
)

// trial is the test whether one size passes. A single acknowledgement is enough for a pass. A failure needs several
// losses, and control probes that pass at the same time.
type trial struct {
	serial uint32 // identifies the trial in the history
	size   int    // the tested size; 0: there is no trial
	need   int    // losses needed after the first control probe that passes
	// hasty: the first control probe does not wait for the loss of the first large one, as the round-trip time is
	// unknown, and so is whether the peer exists.
	hasty  bool
	silent int // control probes lost in a row after which the peer counts as silent
}

func (t *trial) stop() { t.size = 0 }

// verdict is the result of a trial, except for a pass.
type verdict uint8

const (
	undecided verdict = iota
	fails             // the size does not pass, although smaller ones do
	silence           // nothing passes
)

// tally counts the probes of a trial by outcome.
type tally struct {
	large, largeLost int // large probes, those lost
	open             int // large probes without an outcome yet
	controls         int // control probes
	controlsLost     int
	deaf             int  // control probes lost in a row, up to the last
	controlOpen      bool // a control probe has no outcome yet
	passed           bool // the last control probe with an outcome passed
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

// need returns the number of counted losses for a failure.
func (p *Prober) need(t tally) int {
	return p.trial.need + lossesPerLoss*min(t.controlsLost, maxLossy)
}

// judge returns the verdict of the trial so far.
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

// wants returns the size of the next probe of the trial; ok is false while it waits for replies.
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

// timeout returns how long to wait for a reply (RFC 8899, section 5.1.1, PROBE_TIMER). A later reply still counts.
func (p *Prober) timeout() time.Duration {
	if p.rtt == 0 {
		return firstTimeout
	}
	return min(max(3*p.rtt, minTimeout), maxTimeout)
}
