package epoch

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/identity"
	"weft/internal/peer"
)

func TestNodesAgreeOnOneEpoch(t *testing.T) {
	for _, n := range []int{2, 5, 40} {
		joined(t, n)
	}
}

// TestRevokedNodeGetsNoKey: the others have a new epoch within two seconds, and the revoked node does not.
func TestRevokedNodeGetsNoKey(t *testing.T) {
	for _, n := range []int{3, 40} {
		s := joined(t, n)
		before, out := s.agreed(s.nodes), s.nodes[n/2]
		rest := slices.DeleteFunc(slices.Clone(s.nodes), func(n *simNode) bool { return n == out })
		out.honest = false // it stays quiet about its revocation, and takes what it gets
		if adopted, err := rest[0].keeper.AdoptList(s.list(1, out.id), s.now); !adopted || err != nil {
			t.Fatal(adopted, err)
		}
		s.run(2 * time.Second)
		e := s.agreed(rest)
		if e.Name() == before.Name() || opens(out, e, s.now) {
			t.Errorf("%d nodes: the revoked node opens %v; before: %v", n, e, before)
		}
		s.run(Grace)
		for _, node := range rest {
			if opens(node, before, s.now) {
				t.Errorf("%s still opens what the revoked node seals", node.id)
			}
		}
	}
}

// TestRevokedNodeCannotHandOver: a revoked node that is the first to bring the list to a node cannot make it take an epoch.
func TestRevokedNodeCannotHandOver(t *testing.T) {
	s := joined(t, 3)
	out, victim := s.nodes[0], s.nodes[1]
	list := s.list(1, out.id)
	evil := Epoch{Number: 100, Maker: s.nodes[2].id, Made: s.now, Key: [KeySize]byte{66}, Lists: []List{{s.ca.Key().Fingerprint(), 1}}}
	both := appendRecord(appendRecord(nil, recordList, list.Encode()), recordEpoch, evil.encode())
	if err := victim.keeper.Merge(both, s.now); !errors.Is(err, ErrMalformed) {
		t.Errorf("in a state: %v", err)
	}
	if err := victim.keeper.Message(out.id, both, s.now); !errors.Is(err, ErrSender) {
		t.Errorf("in a unicast: %v", err)
	}
	s.run(2 * time.Second)
	for _, n := range s.nodes[1:] {
		if !n.keeper.isRevoked(out.id) || opens(n, evil, s.now) {
			t.Errorf("%s: revoked %v, opens the epoch of the revoked node %v", n.id, n.keeper.isRevoked(out.id), opens(n, evil, s.now))
		}
	}
	s.agreed(s.nodes[1:])
}

// TestPartitionsHeal: the list counts over any number of epochs that the other side has made with the revoked node in it.
func TestPartitionsHeal(t *testing.T) {
	s := joined(t, 7)
	out := s.nodes[6]
	for _, n := range s.nodes[3:] {
		n.side = 1
	}
	if _, err := s.nodes[0].keeper.AdoptList(s.list(1, out.id), s.now); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		s.nodes[3].keeper.makeEpoch(s.now)
		s.run(time.Second)
	}
	behind := s.agreed(s.nodes[3:])
	if here := s.agreed(s.nodes[:3]); here.Number >= behind.Number {
		t.Fatalf("%v here, %v behind the partition", here, behind)
	}
	for _, n := range s.nodes {
		n.side = 0
	}
	out.honest = false
	s.meet(s.nodes[2], s.nodes[5])
	s.run(2 * time.Second)
	e := s.agreed(s.nodes[:6])
	if opens(out, e, s.now) || e.Name() == behind.Name() {
		t.Errorf("%v: the revoked node opens it: %v", e, opens(out, e, s.now))
	}
}

// TestExpiredNodeGetsNoKey: the epoch ends once, although the nodes notice the expiry at different times.
func TestExpiredNodeGetsNoKey(t *testing.T) {
	s := joined(t, 10)
	before := s.agreed(s.nodes)
	at := s.now.Truncate(time.Second) // as in a certificate
	for _, n := range s.nodes {
		s.run(150 * time.Millisecond)
		n.keeper.Expired(at, s.now)
	}
	s.run(2 * time.Second)
	if e := s.agreed(s.nodes); e.Number != before.Number+1 {
		t.Errorf("%v, before %v", e, before)
	}
}

func TestEpochsAreRotated(t *testing.T) {
	s := joined(t, 3)
	before := s.agreed(s.nodes)
	s.now = s.now.Add(rotateAfter)
	s.run(2 * time.Second)
	if e := s.agreed(s.nodes); e.Number != before.Number+1 || e.Maker != s.nodes[0].id {
		t.Errorf("%v of %s, before %v", e, e.Maker, before)
	}
}

// TestNodeThatDoesNotTrustTheCA: a node that cannot check the list of a new CA gets an epoch that the others can use as well.
func TestNodeThatDoesNotTrustTheCA(t *testing.T) {
	s := joined(t, 4)
	second := identity.GenerateCA()
	cas := []identity.CAKey{second.Key(), s.ca.Key()}
	list, err := second.SignRevocations(1, s.now, []identity.Revocation{{ID: peer.ID{99}, At: s.now}})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range s.nodes[1:] {
		n.keeper.SetTrust(n.keeper.Trust().WithCAs(cas), s.now)
	}
	if _, err := s.nodes[1].keeper.AdoptList(list, s.now); err != nil {
		t.Fatal(err)
	}
	s.nodes[0].keeper.makeEpoch(s.now)
	s.nodes[0].keeper.makeEpoch(s.now)
	s.run(5 * time.Second)
	s.agreed(s.nodes)
}

// TestEpochsOfDroppedCAsEnd: nodes that a CA has admitted which is not trusted any more know the epoch.
func TestEpochsOfDroppedCAsEnd(t *testing.T) {
	s := joined(t, 2)
	before := s.agreed(s.nodes)
	s.nodes[0].keeper.SetTrust(identity.NewTrust([]identity.CAKey{identity.GenerateCA().Key()}), s.now)
	s.run(time.Second)
	if e := s.nodes[0].keeper.Present(); e.Name() == before.Name() {
		t.Error("the epoch stays")
	}
}

func TestNumbersCannotBeUsedUp(t *testing.T) {
	s := joined(t, 2)
	n, from := s.nodes[0], s.nodes[1].id
	n.keeper.makeEpoch(s.now) // so that it is not the first one any more
	far := Epoch{Number: n.keeper.Present().Number + maxStep + 1, Maker: from, Made: s.now, Lists: n.keeper.Present().Lists}
	err := n.keeper.Message(from, appendRecord(nil, recordEpoch, far.encode()), s.now)
	if err != nil || n.keeper.Present().Number == far.Number {
		t.Errorf("%v, epoch %v", err, n.keeper.Present())
	}
}

func TestUnopenedPacketsAreRequestedOnceASecond(t *testing.T) {
	s := joined(t, 2)
	n, other := s.nodes[0], s.nodes[1]
	n.keeper.Drain()
	sent := 0
	for range 2500 {
		n.keeper.Unopened(other.id, s.now)
		sent += len(n.keeper.Drain().Unicasts)
		s.now = s.now.Add(time.Millisecond)
	}
	if sent != 3 {
		t.Errorf("%d requests in 2.5 s", sent)
	}
	n.keeper.Unopened(peer.ID{77}, s.now)
	if len(n.keeper.Drain().Unicasts) != 0 {
		t.Error("a node that is no member gets a request")
	}
}

func TestLongListsAreNotBroadcast(t *testing.T) {
	s := joined(t, 3)
	var ids []peer.ID
	for i := range 200 {
		ids = append(ids, peer.ID{200, byte(i)})
	}
	if _, err := s.nodes[0].keeper.AdoptList(s.list(1, ids...), s.now); err != nil {
		t.Fatal(err)
	}
	for _, b := range s.nodes[0].keeper.out.Broadcasts {
		if len(b) > s.nodes[0].keeper.cfg.MaxBroadcast {
			t.Errorf("a broadcast of %d bytes", len(b))
		}
	}
	s.run(2 * time.Second)
	s.agreed(s.nodes)
	for _, n := range s.nodes {
		if !n.keeper.isRevoked(ids[199]) {
			t.Errorf("%s does not have the list", n.id)
		}
	}
}

func TestKeysAreNotPrinted(t *testing.T) {
	e := Epoch{Key: [KeySize]byte{0xab, 0xcd}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s"} {
		if text := fmt.Sprintf(verb, e); strings.Contains(text, "abcd") || strings.Contains(text, "171, 205") {
			t.Errorf("%s: %s", verb, text)
		}
	}
}

// FuzzMessages: no message panics or makes a keeper without a usable epoch.
func FuzzMessages(f *testing.F) {
	s := newSim(nil, 2)
	list, err := s.ca.SignRevocations(1, s.now, []identity.Revocation{{ID: peer.ID{9}, At: s.now}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(appendRecord(s.nodes[0].keeper.State(), recordList, list.Encode()))
	f.Add(appendRecord(appendRecord(nil, recordRequest, nil), recordEpoch, s.nodes[0].keeper.Present().encode()))
	f.Fuzz(func(t *testing.T, msg []byte) {
		k := s.nodes[1].keeper
		_ = k.Merge(msg, s.now)
		_ = k.Message(s.nodes[0].id, msg, s.now)
		for _, u := range k.Drain().Unicasts {
			if _, err := parseMessage(u.Msg); err != nil {
				t.Errorf("%x leads to %x: %v", msg, u.Msg, err)
			}
		}
		if len(k.Opening(s.now)) == 0 {
			t.Errorf("%x leaves no epoch", msg)
		}
	})
}

// TestMemberCannotSplitByNumbers: an admitted node that hands one other node two epochs with numbers far ahead, or that announces to it
// one in the name of a node that does not trust the CA, does not cut it off from the others.
func TestMemberCannotSplitByNumbers(t *testing.T) {
	t.Run("handed over", func(t *testing.T) {
		s := joined(t, 5)
		evil, victim := s.nodes[4], s.nodes[1]
		for step := range uint64(2) {
			e := Epoch{Number: (step + 1) << 32, Maker: evil.id, Made: s.now, Key: [KeySize]byte{byte(step)}, Lists: victim.keeper.ring.lists}
			if err := victim.keeper.Message(evil.id, appendRecord(nil, recordEpoch, e.encode()), s.now); err != nil {
				t.Fatal(err)
			}
			if victim.keeper.Present().Name() != e.Name() {
				t.Fatal("the epoch is not adopted: the test shows nothing")
			}
			victim.keeper.Drain() // the evil node is faster
		}
		for _, n := range slices.DeleteFunc(slices.Clone(s.nodes), func(n *simNode) bool { return n == victim }) {
			s.meet(n, victim)
		}
		s.run(5 * time.Second)
		s.agreed(s.nodes)
	})
	t.Run("announced", func(t *testing.T) {
		s := joined(t, 5)
		evil, victim := s.nodes[4], s.nodes[1]
		if _, err := s.nodes[0].keeper.AdoptList(s.list(1, peer.ID{99}), s.now); err != nil {
			t.Fatal(err)
		}
		s.run(3 * time.Second)
		before := s.agreed(s.nodes)
		for range 3 {
			a := announcement{holder: evil.id, name: Name{1}, number: victim.keeper.Present().Number + maxStep}
			if err := victim.keeper.Merge(appendRecord(nil, recordAnnounce, a.encode()), s.now); err != nil {
				t.Fatal(err)
			}
			s.run(3 * time.Second)
		}
		if e := s.agreed(s.nodes); e.Number-before.Number > 3*(maxOutdo+1) {
			t.Errorf("number %d after %d", e.Number, before.Number)
		}
	})
}
