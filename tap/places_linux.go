package tap

import (
	"sync/atomic"

	"weft/internal/flowhash"
)

// places remembers from which flow queues flows were read. The kernel puts a flow where its answers were written in the last 3 s, else
// where its own hash of the flow says. So answers are written to where the flow was read: it stays there, and its frames in order.
type places [1 << placeBits]atomic.Uint64 // the hash of a flow without its lowest bits, and its flow queue there; 0: none

const (
	placeBits = 10
	queueBits = 8 // of a value
)

// note notes that a frame of a flow was read from a flow queue.
func (p *places) note(flow flowhash.Flow, flowQueue int) {
	hash := flow.Hash()
	if slot, value := p.slot(hash), value(hash, flowQueue); slot.Load() != value {
		slot.Store(value)
	}
}

// find returns the flow queue that a flow was read from; ok is false if that is not known.
func (p *places) find(flow flowhash.Flow) (flowQueue int, ok bool) {
	hash := flow.Hash()
	v := p.slot(hash).Load()
	if v == 0 || v>>queueBits != hash>>queueBits {
		return 0, false
	}
	return int(v&(1<<queueBits-1) - 1), true
}

func (p *places) slot(hash uint64) *atomic.Uint64 { return &p[hash>>(64-placeBits)] }

func value(hash uint64, flowQueue int) uint64 {
	return hash>>queueBits<<queueBits | uint64(flowQueue+1)
}
