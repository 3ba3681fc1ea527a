package e2e

import (
	"testing"
)

// TestSealedNodeComesBack kills a node under traffic, which leaves the others with keys that it has forgotten. Once it runs
// again its pods answer, whether the others had noticed or not; meanwhile nothing is sent in the clear.
func TestSealedNodeComesBack(t *testing.T) {
	nodes, pods := sealedPair(t)
	captures := captureUnderlay(t, nodes...)
	seen := talk(t, pods)
	ping := pods[0].pinging(t, pods[1].addr)
	for _, noticed := range []bool{false, true} {
		ping.goesOn(t, 5)
		nodes[1].Process().Kill()
		if noticed {
			waitState(t, nodes[0], "b", "dead")
		}
		upSealed(t, nodes, nodes[1])
		ping.goesOn(t, 20)
		waitReady(t, nodes)
		waitCarried(t, nodes, "userspace", aes)
	}
	ping.stop(t)
	for _, c := range captures {
		seen.sealed(t, c.packets(t))
	}
}
