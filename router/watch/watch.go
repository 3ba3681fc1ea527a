// Package watch passes the frames between a node and its peers to those that watch them: captures, and samplers of flows.
package watch

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft/internal/peer"
	"weft/router/capture"
	"weft/router/flows"
	"weft/tap/virtio"
)

// Max bounds the captures, and the samplers of flows, at once.
const Max = 8

// Errors of Set while the greatest number of captures, or samplers, runs.
var (
	ErrCaptures = errors.New("router: too many captures at once")
	ErrSamplers = errors.New("router: too many samplers of flows at once")
)

// Set holds the watchers of a node. Any goroutine may call its methods. A frame costs one load of a pointer while there are none.
type Set struct {
	mu   sync.Mutex // held by those that replace list
	list atomic.Pointer[Watchers]
}

// Watchers are those at one time. They are constant.
type Watchers struct {
	captures []*capture.Capture
	samplers []*flows.Sampler
}

// Load returns the watchers, nil if there are none.
func (s *Set) Load() *Watchers { return s.list.Load() }

// Capture adds a capture, and stop removes it. The error is ErrCaptures.
func (s *Set) Capture(c *capture.Capture) (stop func(), err error) {
	return add(s, c, func(w *Watchers) *[]*capture.Capture { return &w.captures }, ErrCaptures)
}

// Sample adds a sampler, and stop removes it. The error is ErrSamplers.
func (s *Set) Sample(sampler *flows.Sampler) (stop func(), err error) {
	return add(s, sampler, func(w *Watchers) *[]*flows.Sampler { return &w.samplers }, ErrSamplers)
}

// add adds one to a list of the watchers, and stop removes it. The error is full if the list has Max.
func add[T comparable](s *Set, one T, list func(*Watchers) *[]T, full error) (stop func(), err error) {
	err = s.change(func(w *Watchers) error {
		l := list(w)
		if len(*l) >= Max {
			return full
		}
		*l = append(*l, one)
		return nil
	})
	return func() {
		_ = s.change(func(w *Watchers) error {
			l := list(w)
			*l = slices.DeleteFunc(*l, func(other T) bool { return other == one })
			return nil
		})
	}, err
}

// change replaces the watchers by a copy that f has made, unless that fails.
func (s *Set) change(f func(*Watchers) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := &Watchers{}
	if w := s.list.Load(); w != nil {
		next.captures, next.samplers = slices.Clone(w.captures), slices.Clone(w.samplers)
	}
	if err := f(next); err != nil {
		return err
	}
	if len(next.captures)+len(next.samplers) == 0 {
		next = nil
	}
	s.list.Store(next)
	return nil
}

// Captures reports whether there are captures.
func (w *Watchers) Captures() bool { return len(w.captures) > 0 }

// CaptureFrame passes one frame to the captures; as has no data yet. An incomplete checksum is completed in a copy.
func (w *Watchers) CaptureFrame(f virtio.Frame, as capture.Frame) {
	as.Data = f.Data
	if f.Offload.GSOType == virtio.GSONone && f.Offload.Flags&virtio.FlagNeedsChecksum != 0 && len(f.More) == 0 {
		as.Data = slices.Clone(f.Data)
		virtio.CompleteChecksum(f.Offload, as.Data)
	}
	for _, c := range w.captures {
		c.Add(as, f.More...)
	}
}

// SampleFrame passes one frame to the samplers that take it, and asks for its peer only then. segment is the payload of a segment in
// bytes, 0 if f is no superframe.
func (w *Watchers) SampleFrame(f virtio.Frame, segment int, sent bool, now time.Time, behind func() peer.ID) {
	for _, s := range w.samplers {
		weight := s.Pick(flows.Userspace)
		if weight == 0 {
			continue
		}
		length := len(f.Data)
		for _, piece := range f.More {
			length += len(piece)
		}
		s.Add(flows.Key{Peer: behind(), Path: flows.Userspace, Sent: sent}, f.Data, length, segment, weight, now)
	}
}
