// Package fairqueue decides from which of several queues to take the next packet: deficit round robin, in which a queue that was empty
// goes first. It is the scheduler of FQ-CoDel, RFC 8290, section 4.2.
//
// Each queue in turn may give a quantum of bytes. So busy queues get equal shares whatever the size of their packets, and the few packets
// of a queue that is mostly empty do not wait for those of the others.
package fairqueue

import "math/bits"

// Max is the most queues of a Scheduler.
const Max = 32

// Scheduler is the state of the queues. Make it with New. One goroutine owns it.
type Scheduler struct {
	quantum  int
	fresh    []int // queues that were empty, in turn: they go before old ones
	old      []int
	deficits []int  // of each queue: bytes that it may still give in this turn; at most 0: its turn is over
	active   uint32 // the queues in fresh or old
}

// New returns the state of n empty queues, at most Max. quantum is what each may give in its turn, in bytes.
func New(n, quantum int) *Scheduler {
	return &Scheduler{quantum: quantum, fresh: make([]int, 0, n), old: make([]int, 0, n), deficits: make([]int, n)}
}

// Filled notes that queues have packets: bit i stands for queue i.
func (s *Scheduler) Filled(queues uint32) {
	for left := queues &^ s.active; left != 0; left &= left - 1 {
		i := bits.TrailingZeros32(left)
		s.fresh = append(s.fresh, i)
		s.deficits[i] = s.quantum
	}
	s.active |= queues
}

// Next returns the queue to take packets from, until MayGive of it is false or it is empty. ok is false if all queues are empty.
func (s *Scheduler) Next() (queue int, ok bool) {
	for {
		list := &s.fresh
		if len(*list) == 0 {
			if list = &s.old; len(*list) == 0 {
				return 0, false
			}
		}
		i := (*list)[0]
		if s.deficits[i] > 0 {
			return i, true
		}
		s.deficits[i] += s.quantum
		removeFirst(list)
		s.old = append(s.old, i)
	}
}

// Took notes that a packet of that many bytes was taken from a queue.
func (s *Scheduler) Took(queue, bytes int) { s.deficits[queue] -= bytes }

// MayGive reports whether a queue may give another packet in this turn.
func (s *Scheduler) MayGive(queue int) bool { return s.deficits[queue] > 0 }

// Emptied notes that the queue which Next returned last is empty. If old queues wait, a fresh one becomes the last of them: otherwise it
// could go before them each time that it has a packet.
func (s *Scheduler) Emptied(queue int) {
	if len(s.fresh) > 0 && s.fresh[0] == queue {
		removeFirst(&s.fresh)
		if len(s.old) > 0 {
			s.old = append(s.old, queue)
			return
		}
	} else {
		removeFirst(&s.old)
	}
	s.active &^= 1 << queue
}

// removeFirst removes the first element and keeps the array.
func removeFirst(list *[]int) { *list = append((*list)[:0], (*list)[1:]...) }
