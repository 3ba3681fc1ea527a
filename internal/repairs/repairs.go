// Package repairs records what weft restores on a host because other programs have changed it, and reports it.
package repairs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"weft/internal/health"
	"weft/internal/hoststate"
	"weft/internal/plural"
	"weft/internal/podlink"
)

// maxRecent bounds the different repairs that a condition names.
const maxRecent = 4

// Log records what was restored on the host, and what could not be. The zero value is empty. Its methods may be called from any goroutine.
type Log struct {
	mu    sync.Mutex
	state state // guarded by mu
}

// state is what a Log has recorded. A snapshot is not changed.
type state struct {
	counts    map[string]int // by kind, since the start
	recent    []string       // what was wrong, the last first, each once
	last      time.Time
	failed    []Failure
	contested []hoststate.Contested
	moved     []hoststate.Link // pods' ports in another bridge
}

// Failure is a part of the host that could not be restored.
type Failure struct {
	What    string // what is wrong, as a part of a sentence
	Setting bool   // it is a setting of the kernel
	Err     error
}

// snapshot returns what is recorded now.
func (l *Log) snapshot() state {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.state
	s.counts = maps.Clone(s.counts)
	return s
}

// Counts returns the number of repairs by kind, since the start.
func (l *Log) Counts() map[string]int { return l.snapshot().counts }

// Add records a repair of a kind; what was wrong is a part of a sentence.
func (l *Log) Add(kind, what string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state.counts == nil {
		l.state.counts = make(map[string]int)
	}
	l.state.counts[kind]++
	l.state.last = now
	others := slices.DeleteFunc(slices.Clone(l.state.recent), func(s string) bool { return s == what })
	l.state.recent = append([]string{what}, others[:min(len(others), maxRecent-1)]...)
}

// SetFailed replaces what could not be restored. The caller does not change the list any more.
func (l *Log) SetFailed(list []Failure) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.failed = list
}

// SetContested replaces the repairs that another program undoes each time. The caller does not change the list any more.
func (l *Log) SetContested(list []hoststate.Contested) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.contested = list
}

// SetMoved replaces the pods' ports that are in another bridge. The caller does not change the list any more.
func (l *Log) SetMoved(list []hoststate.Link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.moved = list
}

// total returns the number of repairs.
func (s state) total() (n int) {
	for _, count := range s.counts {
		n += count
	}
	return n
}

// repairedFor is how long a repair remains a condition.
const repairedFor = 10 * time.Minute

// Findings reports what other programs change on the host: what was restored, what cannot be, and what is undone each time. bridge and tap
// are the names of links of weft.
func (l *Log) Findings(bridge, tap string, now time.Time) (findings []health.Finding) {
	s := l.snapshot()
	remedy := fmt.Sprintf("Find the program that changes it, such as NetworkManager or systemd-networkd, and exclude %s, %s and %s* there.",
		bridge, tap, podlink.HostPrefix)
	if s.total() > 0 && now.Sub(s.last) <= repairedFor {
		findings = append(findings, health.Finding{
			Code: health.BridgeRepaired,
			Text: fmt.Sprintf("Another program changed what weft set on this host, %s since the start, last at %s. weft restored it: %s.",
				plural.Count(s.total(), "time"), s.last.Format(time.DateTime), strings.Join(s.recent, "; ")),
			Remedy: remedy,
		})
	}
	for _, f := range s.failed {
		finding := health.Finding{
			Code: health.BridgeBroken, Key: f.What, Text: fmt.Sprintf("On this host %s, and weft cannot restore it: %v.", f.What, f.Err),
			Remedy: remedy,
		}
		if f.Setting {
			finding.Code = health.HostSetting
			finding.Remedy = "Set it with sysctl, where /proc/sys is read-only before the start, and remove what sets another value."
		}
		findings = append(findings, finding)
	}
	for _, c := range s.contested {
		findings = append(findings, health.Finding{
			Code: health.RepairContested, Key: string(c.Kind) + " " + c.Object,
			Text: fmt.Sprintf("Another program undoes each repair of %s (%s): weft restored it %d times in a row, and now waits %v between two "+
				"repairs.", c.Object, c.Kind, c.Repairs, c.Pause),
			Remedy: remedy,
		})
	}
	for _, m := range s.moved {
		findings = append(findings, health.Finding{
			Code: health.PodPortMoved, Key: m.Name,
			Text: fmt.Sprintf("Another program made %s, the host end of a pod's interface, a port of %s: the pod does not reach the overlay.",
				m.Name, m.Master),
			Remedy: fmt.Sprintf("Run \"ip link set %s master %s\", or detach the pod.", m.Name, bridge),
		})
	}
	return findings
}
