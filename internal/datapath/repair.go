package datapath

import (
	"maps"
	"slices"
	"sync"
	"time"

	"weft/internal/hoststate"
)

// repairKernelPath is the kind of a repair that makes the device of the kernel path again, beside the kinds of package hoststate.
const repairKernelPath = "kernel_path"

// repairKinds returns the kinds of all repairs.
func repairKinds() []string {
	kinds := []string{repairRules, repairKernelPath}
	for _, k := range hoststate.Kinds() {
		kinds = append(kinds, string(k))
	}
	return kinds
}

// maxRecent bounds the different repairs that a condition names.
const maxRecent = 4

// repairs records what was restored on the host, and what could not be. Its methods may be called from any goroutine.
type repairs struct {
	mu    sync.Mutex
	state repairState // guarded by mu
}

// repairState is what repairs has recorded. A snapshot is not changed.
type repairState struct {
	counts    map[string]int // by kind, since the start
	recent    []string       // what was wrong, the last first, each once
	last      time.Time
	failed    []failure
	contested []hoststate.Contested
	moved     []hoststate.Link // pods' ports in another bridge
}

// failure is a part of the host that could not be restored.
type failure struct {
	what    string
	setting bool // it is a setting of the kernel
	err     error
}

// snapshot returns what is recorded now.
func (r *repairs) snapshot() repairState {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state
	s.counts = maps.Clone(s.counts)
	return s
}

// add records a repair.
func (r *repairs) add(kind, what string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.counts == nil {
		r.state.counts = make(map[string]int)
	}
	r.state.counts[kind]++
	r.state.last = now
	others := slices.DeleteFunc(slices.Clone(r.state.recent), func(s string) bool { return s == what })
	r.state.recent = append([]string{what}, others[:min(len(others), maxRecent-1)]...)
}

func (r *repairs) setFailed(list []failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.failed = list
}

func (r *repairs) setContested(list []hoststate.Contested) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.contested = list
}

func (r *repairs) setMoved(list []hoststate.Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.moved = list
}

// total returns the number of repairs.
func (s repairState) total() (n int) {
	for _, count := range s.counts {
		n += count
	}
	return n
}
