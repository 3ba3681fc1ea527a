package liveness

import (
	"slices"

	"weft/internal/peer"
)

// MaxOpen and MaxBroken bound the lists of a Summary, which all nodes of the network receive.
const (
	MaxOpen   = 32
	MaxBroken = 80
)

// Summary lists the peers by the state of their links. Each list is sorted by ID.
type Summary struct {
	Broken []peer.ID // at most MaxBroken
	Open   []peer.ID // at most MaxOpen
}

// Add adds the peer to the list of its state; Unknown has none.
func (s *Summary) Add(id peer.ID, state State) {
	switch state {
	case Broken:
		s.Broken = append(s.Broken, id)
	case Open:
		s.Open = append(s.Open, id)
	default:
	}
}

// Finish sorts the lists and cuts them to their bounds. It is called once, after all peers were added.
func (s *Summary) Finish() {
	slices.SortFunc(s.Broken, peer.ID.Compare)
	slices.SortFunc(s.Open, peer.ID.Compare)
	s.Broken, s.Open = s.Broken[:min(len(s.Broken), MaxBroken)], s.Open[:min(len(s.Open), MaxOpen)]
}

// Equal reports whether both have the same lists.
func (s Summary) Equal(o Summary) bool {
	return slices.Equal(s.Broken, o.Broken) && slices.Equal(s.Open, o.Open)
}
