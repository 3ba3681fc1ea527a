package hoststate

import "time"

// Limits of a Pace.
const (
	// calm is how long after a repair the same change is a new one, and not the answer of another program to the repair.
	calm = 10 * time.Second
	// free is how many repairs of the same change in a row are made at once.
	free = 5
	// longestPause is the longest pause between two repairs of the same change. It is short, as what is wrong stays wrong for so long
	// when the other program has stopped: rules of the guard may be missing.
	longestPause = 2 * time.Second
)

// Pace decides when a repair may be repeated that another program undoes again and again. Each time that the change is back soon
// after a repair, the pause before the next one grows. The zero Pace has no history. It is not safe for concurrent use.
type Pace struct{ streaks map[Key]streak }

// Key identifies repairs of the same change.
type Key struct {
	Kind   Kind
	Object string
}

// streak is a series of repairs of the same change.
type streak struct {
	repairs int
	last    time.Time
	failed  bool // the last one: no other program undoes it
}

// pause is how long after the last repair the next one may be made.
func (s streak) pause() time.Duration {
	if s.repairs < free {
		return 0
	}
	return min(time.Second<<min(s.repairs-free, 16), longestPause)
}

// over reports whether the change did not come back after the last repair.
func (s streak) over(now time.Time) bool { return now.Sub(s.last) > calm+2*s.pause() }

// Wait returns how long a repair has to wait; 0: not at all.
func (p *Pace) Wait(k Key, now time.Time) time.Duration {
	s, known := p.streaks[k]
	if !known || s.over(now) {
		return 0
	}
	return max(0, s.pause()-now.Sub(s.last))
}

// IsContested reports whether the change is repaired with pauses now.
func (p *Pace) IsContested(k Key, now time.Time) bool {
	s, known := p.streaks[k]
	return known && !s.over(now) && s.pause() > 0
}

// Repaired records that a repair was tried.
func (p *Pace) Repaired(k Key, now time.Time) {
	if p.streaks == nil {
		p.streaks = make(map[Key]streak)
	}
	s := p.streaks[k]
	if s.over(now) {
		s = streak{}
	}
	p.streaks[k] = streak{repairs: s.repairs + 1, last: now}
}

// Failed records that the repair failed that was just recorded.
func (p *Pace) Failed(k Key) {
	if s, known := p.streaks[k]; known {
		s.failed = true
		p.streaks[k] = s
	}
}

// Contested is a change that another program makes again after each repair.
type Contested struct {
	Key
	Repairs int           // in a row
	Pause   time.Duration // before the next one
}

// Contested returns the changes that are repaired with pauses now, without failed repairs. It forgets those that did not come back.
func (p *Pace) Contested(now time.Time) (list []Contested) {
	for k, s := range p.streaks {
		switch {
		case s.over(now):
			delete(p.streaks, k)
		case s.pause() > 0 && !s.failed:
			list = append(list, Contested{k, s.repairs, s.pause()})
		}
	}
	return list
}
