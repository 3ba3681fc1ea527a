package router

import (
	"time"

	"weft/router/codel"
	"weft/router/ecn"
)

// Frames of pods wait in the flow queues of the TAP, each of which holds hundreds of superframes, until the node has time for them. While
// one is not empty once in queueInterval, it does not level a burst: the pods send more than the node can carry, and wait for their own
// data. The values are measured; see docs/adr/0046-standing-queues.md.
const (
	queueTarget   = time.Millisecond
	queueInterval = 100 * time.Millisecond
	bulkSegments  = 4 // of a superframe of a bulk transfer
)

// standing watches a flow queue of a TAP.
type standing struct {
	*codel.Emptied
	to *peerView // of the last bulk transfer; nil for none
}

func newStanding() standing { return standing{Emptied: codel.NewEmptied(queueTarget, queueInterval)} }

// note notes that frames were read at now, and that there may be more. It reports whether a sender shall slow down.
func (s *standing) note(more bool, now time.Time) bool {
	var roundTrip time.Duration
	if s.to != nil && s.Busy(now) {
		roundTrip = s.to.rtt()
	}
	return s.SignalBatch(more, roundTrip, now)
}

// noteStanding notes which flow queues the batch left frames in, and decides which senders shall slow down.
func (o *outbound) noteStanding() {
	o.slow = 0
	var read uint32
	for i := range o.batch.Frames() {
		read |= 1 << o.batch.FlowQueue(i)
	}
	for i, waiting := 0, o.batch.Waiting(); i < len(o.standing); i++ {
		switch bit := uint32(1) << i; {
		case read&bit != 0:
			if o.standing[i].note(waiting&bit != 0, o.now) {
				o.slow |= bit
			}
		case waiting&bit == 0:
			o.standing[i].Empty()
		}
	}
}

// slowDown makes the sender of a superframe slow down: it marks the superframe, as the kernel's queues do, or has its last segment not
// sent if its flow does not understand marks. Single frames are not lost: their flows do not fill the queue.
func slowDown(f *outgoing) { f.cut = !ecn.Decapsulate(f.Data, ecn.CE) }
