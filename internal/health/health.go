// Package health is the registry of conditions: what is wrong with a node now, since when, and how to fix it.
//
// Every condition has a code that never changes, so that alerts, tests and documentation can refer to it; codes.go lists
// them all. The parts of a node report findings (Source); the Registry adds severity and title from the table, remembers
// since when each finding has been there, and drops it when its source no longer reports it.
package health

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Code names a kind of condition, in snake_case. Codes are part of the outward contract.
type Code string

// Severity ranks a condition. The zero Severity is invalid.
type Severity string

// Severities, the mildest first.
const (
	Info    Severity = "info"    // worth knowing; nothing has to be done
	Warning Severity = "warning" // the node works, but worse than it could, or not for every peer
	Error   Severity = "error"   // something does not work, or addresses may be in use twice
)

// Definition describes all conditions of one code.
type Definition struct {
	Code     Code
	Severity Severity
	Title    string // a few words, without a period
}

// Finding is what a Source reports: one instance of a condition.
type Finding struct {
	Code Code
	// Key distinguishes findings of one code, such as a peer ID or an address; empty where there can be only one.
	Key    string
	Text   string // what is wrong: full sentences
	Remedy string // how to fix it: full sentences; empty where nothing can be done but wait
}

// Condition is a finding with everything that a person or an alert needs.
type Condition struct {
	Finding
	Severity Severity
	Title    string
	Since    time.Time
}

// Source reports what is wrong in one part of a node. Findings is called by one goroutine at a time, and must not wait for
// anything slower than a lock or a netlink request.
type Source interface {
	Findings() []Finding
}

// Requirement is something a node needs before a pod can join. Missing returns a phrase that says what is missing, or an
// empty string. It may be called by any goroutine and must not wait.
type Requirement interface {
	Missing() string
}

// Config is what a Registry is made of.
type Config struct {
	Sources      []Source      // in the order in which conditions of equal severity are shown
	Requirements []Requirement // in the order in which they are usually met
	Logger       *slog.Logger  // nil: nothing is logged
	Now          func() time.Time
}

// Registry holds the conditions of a node. All methods may be called from any goroutine.
type Registry struct {
	cfg Config

	mu    sync.Mutex
	since map[key]time.Time // guarded by mu: the first time that each present finding was reported
}

// key identifies a finding over time.
type key struct {
	code Code
	key  string
}

// New returns a Registry. A nil Config.Now means time.Now.
func New(cfg Config) *Registry {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Registry{cfg: cfg, since: make(map[key]time.Time)}
}

// Conditions asks all sources and returns the conditions of now, the most severe first. The result is never nil. It logs the begin
// and the end of each condition.
func (r *Registry) Conditions() []Condition {
	conditions, began, ended := r.evaluate()
	for _, c := range began {
		r.cfg.Logger.Debug("condition began", "code", c.Code, "severity", c.Severity, "text", c.Text)
	}
	for _, k := range ended {
		r.cfg.Logger.Debug("condition ended", "code", k.code, "key", k.key)
	}
	return conditions
}

// evaluate returns the present conditions, those among them that are new, and the keys of those that have ended.
func (r *Registry) evaluate() (all, began []Condition, ended []key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.cfg.Now()
	all = []Condition{}
	seen := make(map[key]bool)
	for _, source := range r.cfg.Sources {
		for _, f := range source.Findings() {
			k := key{f.Code, f.Key}
			if seen[k] {
				continue
			}
			seen[k] = true
			since, known := r.since[k]
			if !known {
				since = now
				r.since[k] = now
			}
			d := DefinitionOf(f.Code)
			c := Condition{Finding: f, Severity: d.Severity, Title: d.Title, Since: since}
			all = append(all, c)
			if !known {
				began = append(began, c)
			}
		}
	}
	for k := range r.since {
		if !seen[k] {
			delete(r.since, k)
			ended = append(ended, k)
		}
	}
	slices.SortStableFunc(all, func(a, b Condition) int { return cmp.Compare(rank(b.Severity), rank(a.Severity)) })
	return all, began, ended
}

// rank orders severities; a higher rank is more severe.
func rank(s Severity) int { return slices.Index([]Severity{Info, Warning, Error}, s) }

// Missing returns a phrase that says what the node still needs before a pod can join; empty: it is ready.
func (r *Registry) Missing() string {
	for _, requirement := range r.cfg.Requirements {
		if missing := requirement.Missing(); missing != "" {
			return missing
		}
	}
	return ""
}

// Ready reports whether a pod could join now.
func (r *Registry) Ready() bool { return r.Missing() == "" }

// period is how often Run evaluates the conditions: often enough for Since to be right within seconds.
const period = 5 * time.Second

// Run evaluates the conditions periodically until ctx ends, so that their begin is known although nothing asks for them.
func (r *Registry) Run(ctx context.Context) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.Conditions()
	}
}

// Sentences returns a condition in the form of one paragraph: the text and then the remedy.
func (f Finding) Sentences() string {
	if f.Remedy == "" {
		return f.Text
	}
	return f.Text + " " + f.Remedy
}

// maxListed is how many names List writes out.
const maxListed = 8

// List joins names with commas: the first eight of them, and the number of the rest.
func List(names []string) string {
	if n := len(names); n > maxListed {
		names = append(names[:maxListed:maxListed], fmt.Sprintf("and %d more", n-maxListed))
	}
	return strings.Join(names, ", ")
}
