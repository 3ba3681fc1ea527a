package node

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/secret"
	"weft/mesh"
)

func TestRotation(t *testing.T) {
	secrets, err := secret.Parse([]byte(secret.Generate() + "\n" + secret.Generate()))
	if err != nil {
		t.Fatal(err)
	}
	first, second := secrets[0].Fingerprint(), secrets[1].Fingerprint()
	member := func(name string, state mesh.State, accepts ...uint32) mesh.Member {
		return mesh.Member{Name: name, State: state, Accepts: accepts}
	}
	ready, old := member("ready", mesh.StateAlive, first), member("old", mesh.StateAlive, second)
	dead, self := member("dead", mesh.StateDead, second), mesh.Member{Name: "self", State: mesh.StateAlive, Self: true}
	for _, tt := range []struct {
		name      string
		secrets   []secret.Secret
		members   []mesh.Member
		behind    int
		reversed  int
		droppable bool
	}{
		{"none", nil, []mesh.Member{self, old}, 0, 0, false},
		{"one", secrets[:1], []mesh.Member{self, old}, 0, 0, false},
		{"two, one behind", secrets, []mesh.Member{self, ready, old, dead}, 1, 0, false},
		{"two, all ready", secrets, []mesh.Member{self, ready, dead}, 0, 0, true},
		{"another order", secrets, []mesh.Member{self, ready, member("turned", mesh.StateAlive, second, first)}, 0, 1, false},
		{"with a CA", secrets, []mesh.Member{self, member("signed", mesh.StateAlive, 7, first, second)}, 0, 0, true},
	} {
		r := rotation(tt.secrets, tt.members)
		if len(r.behind) != tt.behind || len(r.reversed) != tt.reversed || r.droppable != tt.droppable {
			t.Errorf("%s: %+v", tt.name, r)
		}
	}
	if diff := cmp.Diff([]mesh.GossipKey{}, gossipKeys(nil)); diff != "" {
		t.Error(diff)
	}
}
