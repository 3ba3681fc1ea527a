package api_test

import (
	"testing"

	"weft/internal/api"
	"weft/ipam/paxos"
)

// TestMaxInitPeersIsHalfOfTheAcceptors holds the constant, which stands here so that weft-kube need not import an
// engine, to the limit that it is derived from.
func TestMaxInitPeersIsHalfOfTheAcceptors(t *testing.T) {
	if api.MaxInitPeers*2 != paxos.MaxAcceptors {
		t.Errorf("api.MaxInitPeers is %d, half of paxos.MaxAcceptors is %d", api.MaxInitPeers, paxos.MaxAcceptors/2)
	}
}
