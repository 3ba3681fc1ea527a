package node

import (
	"strings"
	"testing"

	"weft/internal/peer"
	"weft/mesh"
)

// TestDeadNamed: a name means the dead node that owns addresses, not one that has left or was replaced, nor one that is alive.
func TestDeadNamed(t *testing.T) {
	node := func(id byte, name string, state mesh.State) mesh.Member {
		return mesh.Member{ID: peer.ID{id}, Name: name, State: state}
	}
	members := []mesh.Member{
		node(1, "a", mesh.StateAlive), node(2, "a", mesh.StateDead), node(3, "a", mesh.StateLeft), node(4, "b", mesh.StateDead),
		node(5, "b", mesh.StateDead), node(6, "c", mesh.StateAlive), node(7, "d", mesh.StateLeft),
	}
	owns := func(id peer.ID) bool { return id[0] != 3 && id[0] != 7 }
	for name, want := range map[string]struct {
		id  byte
		err string
	}{
		"a": {2, ""}, "d": {7, ""}, "b": {0, "2 dead nodes"}, "c": {0, "is alive"}, "e": {0, "no node"},
	} {
		id, err := deadNamed(members, name, owns)
		if id != (peer.ID{want.id}) || (err == nil) != (want.err == "") || err != nil && !strings.Contains(err.Error(), want.err) {
			t.Errorf("%s: %v, %v, want %d, %q", name, id, err, want.id, want.err)
		}
	}
}
