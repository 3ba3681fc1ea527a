package flows

import (
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"weft/internal/peer"
)

// Bounds of a Sampler.
const (
	maxFlows = 1024 // in memory
	maxPeers = 4096 // with traffic of the kernel path
	// maxShift limits N to 1<<maxShift.
	maxShift = 14
	// A path gets twice its N if its window of samples takes less than minWindow. So there are at most some 5,000 samples a second.
	window    = 512 // samples
	minWindow = 100 * time.Millisecond
	// busy is the number of samples a second below which N gets smaller.
	busy = 2 * window
)

// Sampler counts a sample of the frames of one node. Any goroutine may call its methods.
type Sampler struct {
	random func() uint32 // for any goroutine

	shift [numPaths]atomic.Uint32 // log2 of N, by path

	mu     sync.Mutex
	table  *table
	kernel map[peer.ID]PeerTraffic
	paths  [numPaths]samples
}

// samples are the latest samples of a path.
type samples struct {
	began time.Time // of the window
	count int       // in the window
	taken int       // since the last Take
}

// PeerTraffic is the traffic to and from a peer.
type PeerTraffic struct{ Sent, Received Traffic }

// Sample is what passed between two calls of Take, as far as the sampled frames show it.
type Sample struct {
	// Flows has at most 1,024 flows, the largest first.
	Flows []Flow
	// Kernel is the traffic by the kernel path with each peer. That in userspace is counted by the router itself, without an error.
	Kernel map[peer.ID]PeerTraffic
}

// NewSampler returns an empty Sampler, with N = 1.
func NewSampler() *Sampler { return newSampler(rand.Uint32) }

func newSampler(random func() uint32) *Sampler {
	return &Sampler{random: random, table: newTable(maxFlows), kernel: map[peer.ID]PeerTraffic{}}
}

// Pick decides whether the next frame of a path is in the sample. It returns the number of frames that it then stands for, N, and 0
// for a frame that is not in the sample, of which this is the whole cost.
func (s *Sampler) Pick(p Path) (weight int) {
	shift := s.shift[p].Load()
	if s.random()&(1<<shift-1) != 0 {
		return 0
	}
	return 1 << shift
}

// Every returns N of a path, a power of two.
func (s *Sampler) Every(p Path) int { return 1 << s.shift[p].Load() }

// Add counts a frame in the sample weight times. k has its peer, path and direction; frame are its beginning, with all its headers
// at least, and length is its length in bytes. A superframe has a payload of segment bytes for each of its segments; for other
// frames segment is 0. Add keeps no memory of the caller, and allocates only for a flow or peer that is new.
func (s *Sampler) Add(k Key, frame []byte, length, segment, weight int, now time.Time) {
	n := trafficOf(length, k.parse(frame), segment)
	n.Frames *= uint64(weight)
	n.Bytes *= uint64(weight)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table.add(k, n)
	if k.Path == Kernel && !k.Peer.IsZero() {
		s.addKernel(k, n)
	}
	s.adapt(k.Path, now)
}

func (s *Sampler) addKernel(k Key, n Traffic) {
	sum, known := s.kernel[k.Peer]
	if !known && len(s.kernel) == maxPeers {
		return
	}
	if k.Sent {
		sum.Sent.add(n)
	} else {
		sum.Received.add(n)
	}
	s.kernel[k.Peer] = sum
}

// adapt counts a sample, and doubles N if samples are too frequent. The caller holds mu.
func (s *Sampler) adapt(p Path, now time.Time) {
	w := &s.paths[p]
	w.taken++
	if w.count == 0 {
		w.began = now
	}
	if w.count++; w.count < window {
		return
	}
	w.count = 0
	if shift := s.shift[p].Load(); now.Sub(w.began) < minWindow && shift < maxShift {
		s.shift[p].Store(shift + 1)
	}
}

// Take returns what was counted since the last Take, elapsed ago, and starts again. Where there were few samples, N gets smaller.
func (s *Sampler) Take(elapsed time.Duration) Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := Sample{Flows: s.table.take(), Kernel: s.kernel}
	s.kernel = make(map[peer.ID]PeerTraffic, len(taken.Kernel))
	for p := Userspace; p < numPaths; p++ {
		w := &s.paths[p]
		s.shift[p].Store(lower(s.shift[p].Load(), w.taken, elapsed))
		*w = samples{}
	}
	return taken
}

// lower returns the log2 of N after taken samples in the elapsed time at the log2 shift: as small as busy allows, and not larger
// than it was.
func lower(shift uint32, taken int, elapsed time.Duration) uint32 {
	perSecond := float64(taken) / max(elapsed.Seconds(), 1e-3)
	if perSecond < 1 {
		return 0
	}
	spare := bits.Len(uint(busy/perSecond)) - 1 // log2, rounded down; -1 for none
	return shift - min(shift, uint32(max(spare, 0)))
}
