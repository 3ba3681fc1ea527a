package scale

import (
	"runtime"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// Phase is what a node costs on average in one part of the measurement. Times are virtual, and figures are per second of virtual time.
type Phase struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"` // how long it took
	// Known, Agreed and Leased are seconds from the last change to the network in this phase: until every node had exactly the nodes that
	// run as members that are alive, until all nodes had the same view of the whole ring, and until all nodes had their addresses.
	Known  float64 `json:"known_s"`
	Agreed float64 `json:"agreed_s"`
	Leased float64 `json:"leased_s"`

	Packets     float64 `json:"packets_per_s"`
	PacketBytes float64 `json:"packet_bytes_per_s"`
	Streams     float64 `json:"streams_per_s"`
	StreamBytes float64 `json:"stream_bytes_per_s"`
	// Busiest is what the node that sent most has sent, in bytes per second.
	Busiest float64 `json:"busiest_bytes_per_s"`
	// CPU is the share of a core that a node uses. The network in memory and the clock of the bubble are part of it.
	CPU float64 `json:"cpu"`
}

// Bytes returns what a node sends per second, in packets and streams.
func (p Phase) Bytes() float64 { return p.PacketBytes + p.StreamBytes }

// meter measures one phase.
type meter struct {
	hosts  []*host
	begin  time.Time     // virtual
	used   time.Duration // CPU time of the process at begin
	before []traffic     // by host
	checks time.Duration // CPU time of the measurement's own looks at the nodes, since begin
}

func newMeter(hosts []*host) *meter {
	synctest.Wait()
	m := &meter{hosts: hosts, begin: time.Now(), before: make([]traffic, len(hosts))}
	for i, h := range hosts {
		m.before[i] = h.sent()
	}
	m.used = processCPU()
	return m
}

// check runs f, which looks at the nodes, and leaves its CPU time out of the figures. f must not wait.
func (m *meter) check(f func() bool) bool {
	synctest.Wait() // until then the CPU time is that of the nodes
	before := processCPU()
	defer func() { m.checks += processCPU() - before }()
	return f()
}

// end fills in the figures of the phase.
func (m *meter) end(p *Phase) {
	synctest.Wait()
	used := processCPU() - m.used - m.checks
	p.Seconds = time.Since(m.begin).Seconds()
	nodeSeconds := p.Seconds * float64(len(m.hosts))
	var all traffic
	for i, h := range m.hosts {
		sent := h.sent().minus(m.before[i])
		all = all.plus(sent)
		p.Busiest = max(p.Busiest, float64(sent.bytes())/p.Seconds)
	}
	p.Packets, p.PacketBytes = float64(all.Packets)/nodeSeconds, float64(all.PacketBytes)/nodeSeconds
	p.Streams, p.StreamBytes = float64(all.Streams)/nodeSeconds, float64(all.StreamBytes)/nodeSeconds
	p.CPU = used.Seconds() / nodeSeconds
}

// processCPU returns the user and system time of this process so far.
func processCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// memory returns the bytes of heap and stacks in use, after garbage collection.
func memory() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
