package leases

import "weft/internal/leases/holder"

// EndStaleNames is a step of Run.
var EndStaleNames = (*Manager).endStaleNames

// FollowPairs is a step of Run on a host with the interfaces that exist.
func FollowPairs(m *Manager, exists func(name string) bool) { m.followPairsOnce(&pairNames{}, exists) }

// NewPairNames returns a function that decides which names are withdrawn and restored, look after look.
func NewPairNames() func(held []HeldName, exists func(name string) bool) (gone, back []holder.Holder) {
	return new(pairNames).changes
}

// LostRemedy is the remedy of a lost lease.
var LostRemedy = lostRemedy
