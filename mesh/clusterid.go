package mesh

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"weft/internal/peer"
	"weft/mesh/metadata"
)

// MaxClusterIDs is how many cluster IDs, one a range, a node publishes: they have to fit its metadata.
const MaxClusterIDs = metadata.MaxClusterIDs

// ErrClusterMismatch is wrapped by the errors about a node of another cluster: one that was bootstrapped independently, so
// that pods of the two may have the same addresses. Both clusters continue, and neither accepts a node of the other.
var ErrClusterMismatch = errors.New("mesh: it belongs to another network: the address range was divided independently there")

// ClusterID identifies the bootstrap of one address range.
type ClusterID = metadata.ClusterID

// ClusterMismatch is a node of another cluster that has tried to join, or that this node has tried to join.
type ClusterMismatch struct {
	ID   peer.ID
	Name string
	Addr netip.AddrPort // gossip address
	At   time.Time      // of the latest attempt
}

// Bounds of the list of cluster mismatches.
const (
	maxClusterMismatches = 64
	clusterMismatchTTL   = 5 * time.Minute
)

// clusterIDs holds this node's cluster IDs, and the nodes that were refused because they have others. Its methods may be
// called concurrently.
type clusterIDs struct {
	mu         sync.Mutex
	own        []ClusterID                 // guarded by mu
	mismatches map[peer.ID]ClusterMismatch // guarded by mu
}

var _ memberlist.MergeDelegate = (*clusterIDs)(nil)

// contradicts reports whether a node with the given IDs is of another cluster. A node that has no ID yet, because its
// ranges are not divided, may join any cluster.
func (c *clusterIDs) contradicts(theirs []ClusterID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(theirs, func(t ClusterID) bool {
		return slices.ContainsFunc(c.own, func(o ClusterID) bool { return o.Range == t.Range && o.By != t.By })
	})
}

// check returns an error, and records the mismatch, when a node belongs to another cluster.
func (c *clusterIDs) check(n *memberlist.Node) error {
	md, err := metadata.Parse(n.Meta) // NotifyAlive reports metadata that cannot be read
	if foreign := err == nil && c.contradicts(md.ClusterIDs); !foreign {
		return nil
	}
	mismatch := ClusterMismatch{ID: peer.FromPublicKey(md.Public), Name: md.Name, Addr: gossipAddr(n), At: time.Now()}
	c.record(mismatch)
	return fmt.Errorf("%w: node %s (%s at %s)", ErrClusterMismatch, mismatch.Name, mismatch.ID, mismatch.Addr)
}

func (c *clusterIDs) record(mismatch ClusterMismatch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mismatches == nil || len(c.mismatches) >= maxClusterMismatches {
		c.mismatches = make(map[peer.ID]ClusterMismatch)
	}
	c.mismatches[mismatch.ID] = mismatch
}

// NotifyMerge implements memberlist.MergeDelegate: it refuses an exchange of states that has a node of another cluster in
// it. The error is about the first one.
func (c *clusterIDs) NotifyMerge(nodes []*memberlist.Node) error {
	var first error
	for _, n := range nodes {
		if err := c.check(n); first == nil {
			first = err // the text of all would be as long as the sender likes
		}
	}
	return first
}

func (c *clusterIDs) list() []ClusterID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.own)
}

// set replaces this node's cluster IDs and reports whether they have changed.
func (c *clusterIDs) set(list []ClusterID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Equal(c.own, list) {
		return false
	}
	c.own = list
	return true
}

// inClusters implements admitter.
func (m *Mesh) inClusters() []ClusterID { return m.clusterIDs.list() }

// checkClusters implements admitter.
func (m *Mesh) checkClusters(member Member, theirs []ClusterID) (foreign bool) {
	if foreign = m.clusterIDs.contradicts(theirs); foreign {
		m.clusterIDs.record(ClusterMismatch{ID: member.ID, Name: member.Name, Addr: member.GossipAddr(), At: time.Now()})
	}
	return foreign
}

// SetClusterIDs publishes the cluster IDs of this node, at most MaxClusterIDs of them. It does not wait until other nodes
// have received them.
func (m *Mesh) SetClusterIDs(list []ClusterID) {
	if m.clusterIDs.set(slices.Clone(list[:min(len(list), MaxClusterIDs)])) {
		m.metaChanged.Set()
	}
}

// ClusterMismatches returns the nodes of other clusters that were refused lately, ordered by name and ID.
func (m *Mesh) ClusterMismatches() []ClusterMismatch {
	m.clusterIDs.mu.Lock()
	defer m.clusterIDs.mu.Unlock()
	var list []ClusterMismatch
	for id, mismatch := range m.clusterIDs.mismatches {
		if time.Since(mismatch.At) > clusterMismatchTTL {
			delete(m.clusterIDs.mismatches, id)
			continue
		}
		list = append(list, mismatch)
	}
	slices.SortFunc(list, func(a, b ClusterMismatch) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return a.ID.Compare(b.ID)
	})
	return list
}
