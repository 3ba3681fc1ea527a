package node

import (
	"testing"

	"weft/internal/controlplane"
	"weft/internal/identity"
	"weft/internal/peer"
	"weft/mesh"
)

// TestShutOutNodeKeepsNoPath: the kernel goes on to carry frames of a node with a stopped daemon, and of no node that was shut out.
func TestShutOutNodeKeepsNoPath(t *testing.T) {
	silent, revoked := peer.ID{1}, peer.ID{2}
	v := view{members: controlplane.NewMembers(peer.ID{9}, "self")}
	v.members.MembersChanged([]mesh.Member{
		{ID: silent, State: mesh.StateDead},
		{ID: revoked, State: mesh.StateDead, Refused: identity.Revoked},
	})
	if !v.Dead(silent) || v.Dead(revoked) {
		t.Errorf("the silent node keeps its path: %v, the one that was shut out: %v", v.Dead(silent), v.Dead(revoked))
	}
}
