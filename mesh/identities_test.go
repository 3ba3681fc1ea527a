package mesh

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/identity"
	"weft/internal/peer"
	"weft/mesh/admission"
	"weft/mesh/metadata"
	"weft/mesh/seal"
)

// authority is a CA of a test.
type authority struct {
	t       *testing.T
	ca      identity.CA
	version uint64
	revoked []identity.Revocation
}

func newAuthority(t *testing.T) *authority { return &authority{t: t, ca: identity.GenerateCA()} }

// sign returns an identity that is valid for an hour, by terms that change may change.
func (a *authority) sign(id Identity, change func(*identity.Terms)) identity.File {
	a.t.Helper()
	terms := identity.Terms{NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	if change != nil {
		change(&terms)
	}
	c, err := a.ca.Sign(id.Public, terms)
	if err != nil {
		a.t.Fatal(err)
	}
	return identity.File{CAs: []identity.CAKey{a.ca.Key()}, Certificate: c}
}

// revoke returns the next list of revoked nodes.
func (a *authority) revoke(ids ...peer.ID) identity.Revocations {
	a.t.Helper()
	a.version++
	for _, id := range ids {
		a.revoked = append(a.revoked, identity.Revocation{ID: id, At: time.Now()})
	}
	list, err := a.ca.SignRevocations(a.version, time.Now(), a.revoked)
	if err != nil {
		a.t.Fatal(err)
	}
	return list
}

// revokedStore is an admission.Store in memory.
type revokedStore struct {
	mu    sync.Mutex
	lists []identity.Revocations // guarded by mu
}

func (s *revokedStore) Load() ([]identity.Revocations, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lists, nil
}

func (s *revokedStore) Save(lists []identity.Revocations) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists = lists
	return nil
}

// startSigned starts a node with an identity.
func startSigned(t *testing.T, net *network, name string, id Identity, f identity.File, peers ...*node) *node {
	t.Helper()
	return startWith(t, net, name, id, func(c *Config) { c.Signed, c.Revoked = f, &revokedStore{} }, peers...)
}

// startSignedCluster starts n nodes, each of which dials two earlier ones.
func startSignedCluster(t *testing.T, net *network, a *authority, n int) (nodes []*node) {
	t.Helper()
	for i := range n {
		id := nodeIdentity(t)
		var peers []*node
		for _, p := range []int{0, i / 2} {
			if p < i {
				peers = append(peers, nodes[p])
			}
		}
		nodes = append(nodes, startSigned(t, net, fmt.Sprint("n", i), id, a.sign(id, nil), peers...))
	}
	awaitFullMesh(t, nodes)
	return nodes
}

// refuses reports whether a node does not admit another one for a reason.
func refuses(n, other *node, reason identity.Refusal) bool {
	m, known := n.roster.lookup(other.cfg.Identity.ID)
	return known && m.State == StateDead && m.Refused == reason
}

// opens reports whether a node can open a packet that another one seals now.
func opens(n, from *node) bool {
	packet := from.keys.InUse().Sealer.Seal(seal.Packet, seal.Header{Sender: from.cfg.Identity.ID}, []byte("hello"))
	_, _, _, _, err := seal.Open(n.keys.InUse().Packets, packet)
	return err == nil
}

// without returns all nodes but one.
func without(nodes []*node, out *node) []*node {
	return slices.DeleteFunc(slices.Clone(nodes), func(n *node) bool { return n == out })
}

// shutOutWithin revokes a node at another one, and fails unless within d all others refuse it and seal with a key that it does not
// have.
func shutOutWithin(t *testing.T, a *authority, nodes []*node, out *node, d time.Duration) {
	t.Helper()
	rest, start := without(nodes, out), time.Now()
	// A thief runs the node: it takes what it gets, and follows no list.
	if adopted, err := rest[0].Revoke(a.revoke(out.cfg.Identity.ID)); !adopted || err != nil {
		t.Fatal(adopted, err)
	}
	eventually(t, "all others refuse the revoked node", func() bool {
		return !slices.ContainsFunc(rest, func(n *node) bool { return !refuses(n, out, identity.Revoked) || opens(out, n) })
	})
	took := time.Since(start)
	t.Logf("%d nodes: out after %s", len(nodes), took)
	if took > d {
		t.Errorf("the revoked node is out after %s, want %s", took, d)
	}
	eventually(t, "the others have one key", func() bool {
		return !slices.ContainsFunc(rest, func(n *node) bool { return !opens(n, rest[0]) })
	})
	for _, n := range rest {
		if keys := n.keys.InUse(); len(keys.Packets) == 0 {
			t.Errorf("%s opens nothing", n.cfg.Name)
		}
	}
}

// TestRevokedNodeIsOut: within five seconds, and for good: neither a restart nor a copied certificate brings it back. The others do
// not lose each other at any moment.
func TestRevokedNodeIsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := newAuthority(t)
		nodes := startSignedCluster(t, &net, a, 4)
		out := nodes[3]
		rest := without(nodes, out)
		shutOutWithin(t, a, nodes, out, 5*time.Second)
		staysFullMesh(t, rest, 30*time.Second)
		if opens(rest[0], out) {
			t.Error("a packet of the revoked node opens")
		}
		for _, n := range rest { // memberlist has found it dead meanwhile
			if !refuses(n, out, identity.Revoked) {
				t.Errorf("%s does not report any more that the node is revoked", n.cfg.Name)
			}
		}
		if refused := rest[1].RefusedNodes(); len(refused) != 1 || refused[0].ID != out.cfg.Identity.ID {
			t.Errorf("refused: %v", refused)
		}
		out.stop()
		again := startSigned(t, &net, "again", out.cfg.Identity, out.cfg.Signed, rest...)
		copied := startSigned(t, &net, "copied", out.cfg.Identity, rest[0].cfg.Signed, rest...)
		time.Sleep(time.Minute)
		for _, n := range rest {
			if n.sees(again, StateAlive) || n.sees(copied, StateAlive) || len(again.Members()) > 1 || len(copied.Members()) > 1 {
				t.Errorf("%s: the revoked node is back", n.cfg.Name)
			}
		}
		status := again.TargetStatus()
		if len(status) == 0 {
			t.Fatal("the revoked node has no targets")
		}
		if e, ok := errors.AsType[*RefusedError](status[0].Err); !ok || e.Identity != identity.Revoked || !errors.Is(e, ErrRefused) {
			t.Errorf("the revoked node knows only: %v", status)
		}
		staysFullMesh(t, rest, time.Second)
		stopAll(append(nodes, again, copied)...)
	})
}

// TestRevokedNodeIsOutOfMany is the same for more nodes: 200 with WEFT_SIM=full, which takes a minute of one CPU.
func TestRevokedNodeIsOutOfMany(t *testing.T) {
	count := 25
	if os.Getenv("WEFT_SIM") == "full" {
		count = 200
	}
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := newAuthority(t)
		nodes := startSignedCluster(t, &net, a, count)
		shutOutWithin(t, a, nodes, nodes[count/2], 5*time.Second)
		stopAll(nodes...)
	})
}

// TestRevocationCrossesAPartitionThatHeals: the nodes behind it learn of the list when it heals.
func TestRevocationCrossesAPartitionThatHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := newAuthority(t)
		nodes := startSignedCluster(t, &net, a, 12)
		out, behind := nodes[11], nodes[6:]
		var addrs []netip.AddrPort
		for _, n := range behind {
			addrs = append(addrs, n.transport.addr)
		}
		net.divide(addrs...)
		eventually(t, "the partition is noticed", func() bool { return nodes[0].sees(nodes[6], StateDead) && nodes[6].sees(nodes[0], StateDead) })
		if _, err := nodes[0].Revoke(a.revoke(out.cfg.Identity.ID)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if refuses(nodes[6], out, identity.Revoked) || !fullMesh(behind) {
			t.Error("the list has crossed a partition")
		}
		net.divide()
		eventually(t, "the nodes behind the partition refuse the revoked node", func() bool {
			return !slices.ContainsFunc(behind[:5], func(n *node) bool { return !refuses(n, out, identity.Revoked) || opens(out, n) })
		})
		awaitFullMesh(t, nodes[:11])
		eventually(t, "all have one key", func() bool {
			return !slices.ContainsFunc(nodes[:11], func(n *node) bool { return !opens(n, nodes[0]) || opens(out, n) })
		})
		stopAll(nodes...)
	})
}

// TestExpiredNodeIsOutUntilRenewed: an expired certificate shuts a node out, and a new one brings it back without a restart.
func TestExpiredNodeIsOutUntilRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := newAuthority(t)
		nodes := startSignedCluster(t, &net, a, 3)
		id := nodeIdentity(t)
		soon := a.sign(id, func(terms *identity.Terms) { terms.NotAfter = time.Now().Add(time.Minute) })
		short := startSigned(t, &net, "short", id, soon, nodes...)
		awaitFullMesh(t, append(nodes, short))
		time.Sleep(time.Minute)
		eventually(t, "the expired node is out, and has no key", func() bool {
			return !slices.ContainsFunc(nodes, func(n *node) bool { return !refuses(n, short, identity.Expired) || opens(short, n) })
		})
		staysFullMesh(t, nodes, 10*time.Second)
		if err := short.SetCredentials(nil, a.sign(id, nil)); err != nil {
			t.Fatal(err)
		}
		awaitFullMesh(t, append(nodes, short))
		eventually(t, "it has the key again", func() bool { return opens(short, nodes[0]) && opens(nodes[1], short) })
		stopAll(append(nodes, short)...)
	})
}

// TestWrongIdentitiesAreRefused: each with its reason.
func TestWrongIdentitiesAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := newAuthority(t)
		nodes := startSignedCluster(t, &net, a, 2)
		all := nodes
		for _, tt := range []struct {
			name string
			file func(id Identity) identity.File
			want identity.Refusal
		}{
			{"other name", func(id Identity) identity.File {
				return a.sign(id, func(terms *identity.Terms) { terms.Name = "someone else" })
			}, identity.OtherName},
			{"other address", func(id Identity) identity.File {
				return a.sign(id, func(terms *identity.Terms) { terms.Addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} })
			}, identity.OtherAddress},
			{"other CA", func(id Identity) identity.File {
				f := newAuthority(t).sign(id, nil)
				f.CAs = append(f.CAs, a.ca.Key())
				return f
			}, identity.OtherCA},
			{"not yet", func(id Identity) identity.File {
				return a.sign(id, func(terms *identity.Terms) { terms.NotBefore = time.Now().Add(10 * time.Minute) })
			}, identity.NotYetValid},
			{"other key", func(Identity) identity.File { return nodes[0].cfg.Signed }, identity.OtherCA},
		} {
			id := nodeIdentity(t)
			n := startSigned(t, &net, tt.name, id, tt.file(id), nodes...)
			all = append(all, n)
			eventually(t, tt.name+" is refused", func() bool {
				return slices.ContainsFunc(nodes[0].RefusedNodes(), func(r admission.Refused) bool {
					return r.ID == id.ID && r.Err.Refusal == tt.want && r.Err.Error() != "" && r.Err.Refusal.Remedy("that node") != ""
				})
			})
			if nodes[0].sees(n, StateAlive) {
				t.Errorf("%s is admitted", tt.name)
			}
		}
		staysFullMesh(t, nodes, time.Second)
		stopAll(all...)
	})
}

// TestMoveToIdentities moves a network from a secret to identities and back, node by node. No node is lost at any moment.
func TestMoveToIdentities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := newAuthority(t)
		nodes := startCluster(t, &net, "o", "o", "o")
		awaitFullMesh(t, nodes)
		step := func(keys string, signed bool) {
			t.Helper()
			for _, n := range nodes {
				var f identity.File
				if signed {
					f = a.sign(n.cfg.Identity, nil)
				}
				if err := n.SetCredentials(testKeys(keys), f); err != nil {
					t.Fatal(err)
				}
				staysFullMesh(t, nodes, 5*time.Second)
			}
			for _, n := range nodes {
				if !opens(n, nodes[0]) {
					t.Errorf("%q, signed %v: %s does not open what %s seals", keys, signed, n.cfg.Name, nodes[0].cfg.Name)
				}
			}
		}
		step("o", true)
		id := nodeIdentity(t)
		bySecret := startWith(t, &net, "secret", id, func(c *Config) { c.Keys = testKeys("o") }, nodes...)
		awaitFullMesh(t, append(nodes, bySecret))
		bySecret.stop()
		eventually(t, "it is dead", func() bool { return nodes[0].sees(bySecret, StateDead) })
		step("", true)
		late := startSigned(t, &net, "late", nodeIdentity(t), identity.File{}, nodes...) // has nothing
		bySecret = startWith(t, &net, "secret2", nodeIdentity(t), func(c *Config) { c.Keys = testKeys("o") }, nodes...)
		time.Sleep(time.Minute)
		if len(late.Members()) != 1 || len(bySecret.Members()) != 1 {
			t.Errorf("nodes without an identity know %v and %v", late.Members(), bySecret.Members())
		}
		step("o", true)
		step("o", false)
		stopAll(append(nodes, late, bySecret)...)
	})
}

// TestRevokedNodeWithTheSecret: while a network has both, a revoked key is not admitted by the secret either.
func TestRevokedNodeWithTheSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := newAuthority(t)
		var nodes []*node
		for i := range 3 {
			id := nodeIdentity(t)
			nodes = append(nodes, startWith(t, &net, fmt.Sprint("n", i), id, func(c *Config) {
				c.Signed, c.Keys = a.sign(id, nil), testKeys("o")
			}, nodes...))
		}
		awaitFullMesh(t, nodes)
		if _, err := nodes[0].Revoke(a.revoke(nodes[2].cfg.Identity.ID)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is out", func() bool {
			return refuses(nodes[0], nodes[2], identity.Revoked) && refuses(nodes[1], nodes[2], identity.Revoked)
		})
		time.Sleep(time.Minute)
		if nodes[1].sees(nodes[2], StateAlive) {
			t.Error("it is back by the secret")
		}
		stopAll(nodes...)
	})
}

// TestListsSurviveARestart: a node that starts again with an old copy of the network's state does not go back to an older list, and
// takes no forged one.
func TestListsSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a, store := newAuthority(t), &revokedStore{}
		id, out := nodeIdentity(t), nodeIdentity(t)
		older := a.revoke()
		n := startWith(t, &net, "n", id, func(c *Config) { c.Signed, c.Revoked = a.sign(id, nil), store })
		if _, err := n.Revoke(a.revoke(out.ID)); err != nil {
			t.Fatal(err)
		}
		n.stop()
		n = startWith(t, &net, "n", id, func(c *Config) { c.Signed, c.Revoked = a.sign(id, nil), store })
		if adopted, err := n.Revoke(older); adopted || err != nil {
			t.Errorf("an older list: adopted %v, %v", adopted, err)
		}
		if adopted, err := n.Revoke(newAuthority(t).revoke(id.ID)); adopted || !errors.Is(err, identity.ErrMalformed) {
			t.Errorf("a list of another CA: adopted %v, %v", adopted, err)
		}
		o := startSigned(t, &net, "out", out, a.sign(out, nil), n)
		time.Sleep(30 * time.Second)
		if n.sees(o, StateAlive) || n.IdentityStatus().Trust.List(a.ca.Key()).Version != 2 {
			t.Error("the list has gone back")
		}
		plain := start(t, &net, "plain", nodeIdentity(t))
		if _, err := plain.Revoke(older); !errors.Is(err, ErrNoIdentity) {
			t.Errorf("a list for a node without an identity: %v", err)
		}
		stopAll(n, o, plain)
	})
}

// TestMetadataHasRoomForACertificate: the longest metadata fits memberlist's bound.
func TestMetadataHasRoomForACertificate(t *testing.T) {
	full := metadata.Node{VNI: 1, Name: string(make([]byte, identity.MaxName)), Certificate: make([]byte, identity.MaxCertificate)}
	for range MaxKeys {
		full.Accepts = append(full.Accepts, 1)
	}
	for range MaxClusterIDs {
		full.ClusterIDs = append(full.ClusterIDs, ClusterID{Range: 1, By: 1})
	}
	if n := len(full.Encode()); n > 512 {
		t.Errorf("%d bytes of metadata", n)
	}
}

// TestDeadNodeIsRevoked: the revocation of a node that is dead already is reported, as its kernel may still carry frames.
func TestDeadNodeIsRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := newAuthority(t)
		nodes := startSignedCluster(t, &net, a, 3)
		out, rest := nodes[2], nodes[:2]
		out.stop()
		eventually(t, "it is dead", func() bool { return rest[0].sees(out, StateDead) && rest[1].sees(out, StateDead) })
		if adopted, err := rest[0].Revoke(a.revoke(out.cfg.Identity.ID)); !adopted || err != nil {
			t.Fatal(adopted, err)
		}
		eventually(t, "both report that it is revoked", func() bool {
			return refuses(rest[0], out, identity.Revoked) && refuses(rest[1], out, identity.Revoked)
		})
		stopAll(nodes...)
	})
}
