package ring

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"weft/internal/peer"
)

func TestFirstSharesDifferByOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(8, 32).Draw(t, "bits")
		n := rapid.IntRange(1, 300).Draw(t, "bootstrap nodes")
		r, _ := New(netip.PrefixFrom(netip.AddrFrom4([4]byte{10}), bits))
		bootstrapNodes := make([]peer.ID, n)
		for i := range bootstrapNodes {
			bootstrapNodes[i] = peer.ID{1, byte(i >> 8), byte(i)}
		}
		if _, err := r.Bootstrap(bootstrapNodes); err != nil {
			t.Fatal(err)
		}
		if err := r.Check(); err != nil {
			t.Fatal(err)
		}
		var sum uint64
		for _, total := range r.Totals() {
			sum += total.Addresses
			if share := r.Size() / uint64(n); total.Addresses < share || total.Addresses > share+1 {
				t.Fatalf("%d bootstrap nodes of %d addresses: a share of %d", n, r.Size(), total.Addresses)
			}
		}
		if sum != r.Size() {
			t.Fatalf("%d of %d addresses divided", sum, r.Size())
		}
	})
}

// cluster is some replicas of a ring and the messages between them, beside a naive model: one owner per address.
type cluster struct {
	views []*Ring
	model []int // the node that owns each offset
	air   []*Ring
}

const clusterSize = 64 // addresses

func newCluster(t *rapid.T) *cluster {
	n := rapid.IntRange(2, 6).Draw(t, "nodes")
	bootstrapNodes := rapid.IntRange(1, n).Draw(t, "bootstrap nodes")
	c := &cluster{model: make([]int, clusterSize)}
	var ids []peer.ID
	for i := range bootstrapNodes {
		ids = append(ids, nodeID(i))
	}
	for i := range n {
		r, _ := New(netip.MustParsePrefix("10.0.0.0/26"))
		if i < bootstrapNodes {
			if _, err := r.Bootstrap(ids); err != nil {
				t.Fatal(err)
			}
		}
		c.views = append(c.views, r)
	}
	for o := range c.model {
		owner, _ := c.views[0].Owner(uint64(o))
		c.model[o] = nodeIndex(owner)
	}
	return c
}

func nodeID(i int) peer.ID       { return peer.ID{byte(i + 1)} }
func nodeIndex(id peer.ID) int   { return int(id[0]) - 1 }
func owns(r *Ring, i int) []Span { return r.Owned(nodeID(i)) }

// grant has a random owner grant a random part of its addresses to a random node.
func (c *cluster) grant(t *rapid.T) {
	from := rapid.IntRange(0, len(c.views)-1).Draw(t, "from")
	c.grantFrom(t, from, rapid.IntRange(0, len(c.views)-1).Draw(t, "to"))
}

// grantFrom has a node grant a random part of its addresses to another.
func (c *cluster) grantFrom(t *rapid.T, from, to int) {
	spans := owns(c.views[from], from)
	if len(spans) == 0 || from == to {
		return
	}
	span := rapid.SampledFrom(spans).Draw(t, "span")
	start := rapid.Uint64Range(span.Start, span.End-1).Draw(t, "start")
	end := rapid.Uint64Range(start+1, span.End).Draw(t, "end")
	delta, err := c.views[from].Grant(nodeID(from), nodeID(to), Span{start, end}, Span.Len)
	if err != nil {
		t.Fatal(err)
	}
	for o := start; o < end; o++ {
		c.model[o] = to
	}
	c.send(t, delta)
}

// send adds delta to the messages in flight, in chunks that are delivered independently.
func (c *cluster) send(t *rapid.T, delta *Ring) {
	for _, chunk := range delta.Chunks(100) {
		msg, err := Decode(chunk)
		if err != nil {
			t.Fatal(err)
		}
		c.air = append(c.air, msg)
	}
}

// deliver merges a random message in flight into a random view; it may be delivered again, later, elsewhere or never.
func (c *cluster) deliver(t *rapid.T) {
	if len(c.air) == 0 {
		return
	}
	msg := rapid.SampledFrom(c.air).Draw(t, "message")
	c.merge(t, rapid.IntRange(0, len(c.views)-1).Draw(t, "at"), msg)
}

func (c *cluster) merge(t *rapid.T, at int, msg *Ring) {
	_, conflicts, err := c.views[at].Merge(nodeID(at), msg)
	if err != nil || len(conflicts) > 0 {
		t.Fatalf("node %d: err %v, conflicts %v", at, err, conflicts)
	}
}

// check asserts the safety property: no node owns, in its own view, an address that the model assigns to another.
func (c *cluster) check(t *rapid.T) {
	for i, view := range c.views {
		if err := view.Check(); err != nil {
			t.Fatal(err)
		}
		for _, s := range owns(view, i) {
			for o := s.Start; o < s.End; o++ {
				if c.model[o] != i {
					t.Fatalf("node %d owns %d in its view, but node %d owns it\n%s", i, o, c.model[o], c.dump())
				}
			}
		}
	}
}

func (c *cluster) dump() string {
	var s string
	for i, view := range c.views {
		s += fmt.Sprintf("node %d: %+v\n", i, view.tokens)
	}
	return s
}

func TestNoAddressHasTwoOwnersAndViewsConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(t)
		t.Repeat(map[string]func(*rapid.T){
			"grant":   c.grant,
			"deliver": c.deliver,
			"report": func(t *rapid.T) {
				i := rapid.IntRange(0, len(c.views)-1).Draw(t, "node")
				left := rapid.Uint64Range(0, clusterSize).Draw(t, "free")
				c.send(t, c.views[i].ReportFree(nodeID(i), func(Span) uint64 { return left }, nil))
			},
			"push-pull": func(t *rapid.T) {
				i := rapid.IntRange(0, len(c.views)-1).Draw(t, "from")
				c.merge(t, rapid.IntRange(0, len(c.views)-1).Draw(t, "to"), c.views[i].Clone())
			},
			"": c.check,
		})
		for range 2 { // at last each node receives the view of each other
			for i := range c.views {
				for j := range c.views {
					c.merge(t, j, c.views[i].Clone())
				}
			}
		}
		c.check(t)
		for _, view := range c.views {
			if !view.Equal(c.views[0]) {
				t.Fatalf("views differ\n%s", c.dump())
			}
		}
		for o, want := range c.model {
			if owner, ok := c.views[0].Owner(uint64(o)); !ok || nodeIndex(owner) != want {
				t.Fatalf("offset %d: owner %s (%v), want node %d\n%s", o, owner, ok, want, c.dump())
			}
		}
	})
}

// TestContradictionsConverge has nodes write arbitrary tokens, and checks that views converge all the same.
func TestContradictionsConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const n = 3
		views := make([]*Ring, n)
		for i := range views {
			views[i], _ = New(netip.MustParsePrefix("10.0.0.0/28"))
			views[i].clusterID = ClusterID{1}
			views[i].tokens = drawTokens(t, views[i])
		}
		for round := range 20 {
			for i := range views {
				for j := range views {
					if _, _, err := views[j].Merge(nodeID(j), views[i].Clone()); err != nil {
						t.Fatal(err)
					}
					if err := views[j].Check(); err != nil {
						t.Fatal(err)
					}
				}
			}
			if views[0].Equal(views[1]) && views[1].Equal(views[2]) {
				return
			}
			if round == 19 {
				t.Fatalf("views still differ:\n%+v\n%+v\n%+v", views[0].tokens, views[1].tokens, views[2].tokens)
			}
		}
	})
}

func drawTokens(t *rapid.T, r *Ring) []Token {
	var tokens []Token
	for start := uint64(0); start < r.Size(); start += rapid.Uint64Range(1, 6).Draw(t, "skip") {
		tok := Token{
			Start:   start,
			End:     rapid.Uint64Range(start+1, r.Size()).Draw(t, "end"),
			Owner:   nodeID(rapid.IntRange(0, 3).Draw(t, "owner")),
			Version: rapid.Uint64Range(1, 3).Draw(t, "version"),
		}
		if epoch := rapid.SampledFrom([]uint64{0, 0, 0, 1, 2}).Draw(t, "epoch"); epoch > 0 {
			tok.Version += epoch<<epochBits - 1
		}
		if tok.Tombstone() {
			tokens = append(tokens, tok)
			continue
		}
		tok.Free = rapid.Uint64Range(0, r.capacity(tok.Span())).Draw(t, "free")
		tokens = append(tokens, tok)
	}
	return tokens
}
