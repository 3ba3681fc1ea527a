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
)

// MaxFoundings is how many ranges' foundings a node tells of: they have to fit its metadata.
const MaxClusterIDs = 16

// ErrForeign is wrapped where a node belongs to another network: one whose address range was divided apart from this one's.
// Either goes on as it is, and takes nobody of the other in: their pods may have the same addresses.
var ErrClusterMismatch = errors.New("mesh: it belongs to another network, whose address range was divided apart from this one's")

// Founding says, by short hashes, how a range was first divided.
type ClusterID struct{ Range, By uint32 }

// Foreigner is a node of another network that turned up.
type ClusterMismatch struct {
	ID   peer.ID
	Name string
	Addr netip.AddrPort // of its gossip
	At   time.Time      // when it was last heard of
}

// Bounds of what is remembered of foreigners.
const (
	maxForeigners = 64
	foreignFor    = 5 * time.Minute
)

// foundings is what this node tells of how its ranges were divided, and who was found to have them divided otherwise.
type foundings struct {
	mu         sync.Mutex
	own        []ClusterID                 // guarded by mu
	foreigners map[peer.ID]ClusterMismatch // guarded by mu
}

// foreign reports whether a node with the given foundings belongs to another network. One whose ranges are not divided
// yet belongs to none.
func (f *foundings) foreign(theirs []ClusterID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(theirs, func(t ClusterID) bool {
		return slices.ContainsFunc(f.own, func(o ClusterID) bool { return o.Range == t.Range && o.By != t.By })
	})
}

// refuse returns an error, and remembers the node, where it belongs to another network.
func (f *foundings) refuse(n *memberlist.Node) error {
	md, err := parseMeta(n.Meta)
	if err != nil || !f.foreign(md.foundings) {
		return nil // others look at what cannot be read
	}
	addr, _ := netip.AddrFromSlice(n.Addr)
	who := ClusterMismatch{
		ID: peer.FromPublicKey(md.public), Name: md.name, Addr: netip.AddrPortFrom(addr.Unmap(), n.Port), At: time.Now(),
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.foreigners == nil || len(f.foreigners) >= maxForeigners {
		f.foreigners = make(map[peer.ID]ClusterMismatch)
	}
	f.foreigners[who.ID] = who
	return fmt.Errorf("%w: node %s (%s at %s)", ErrClusterMismatch, who.Name, who.ID, who.Addr)
}

// NotifyMerge implements memberlist.MergeDelegate: it refuses to join with nodes of another network.
func (f *foundings) NotifyMerge(nodes []*memberlist.Node) error {
	var errs []error
	for _, n := range nodes {
		errs = append(errs, f.refuse(n))
	}
	return errors.Join(errs...)
}

func (f *foundings) list() []ClusterID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.own)
}

// SetFoundings tells the others how this node's ranges were divided, at most MaxFoundings of them. It does not wait for them
// to hear of it.
func (m *Mesh) SetClusterIDs(list []ClusterID) {
	list = slices.Clone(list[:min(len(list), MaxClusterIDs)])
	m.foundings.mu.Lock()
	same := slices.Equal(m.foundings.own, list)
	m.foundings.own = list
	m.foundings.mu.Unlock()
	if same {
		return
	}
	select {
	case m.retell <- struct{}{}:
	default:
	}
}

// Foreigners returns the nodes of other networks that turned up lately, ordered by name and ID.
func (m *Mesh) ClusterMismatches() []ClusterMismatch {
	m.foundings.mu.Lock()
	defer m.foundings.mu.Unlock()
	var list []ClusterMismatch
	for id, f := range m.foundings.foreigners {
		if time.Since(f.At) > foreignFor {
			delete(m.foundings.foreigners, id)
			continue
		}
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b ClusterMismatch) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return a.ID.Compare(b.ID)
	})
	return list
}
