package controlplane

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"

	"weft/internal/peer"
	"weft/internal/signal"
	"weft/ipam"
	"weft/ipam/ring"
	"weft/mesh"
)

// IPAMEvents collects what the allocator reports until the node handles it. Its methods do not wait.
type IPAMEvents struct {
	mesh   *mesh.Mesh
	update signal.Chan // set after each report

	mu           sync.Mutex
	bootstrapped bool      // guarded by mu
	reclaimed    []peer.ID // guarded by mu
}

var _ ipam.Events = (*IPAMEvents)(nil)

// NewIPAMEvents returns the events of a node without any report.
func NewIPAMEvents(m *mesh.Mesh) *IPAMEvents { return &IPAMEvents{mesh: m, update: signal.New()} }

// Bootstrapped implements ipam.Events: a range has been divided. The other nodes learn the cluster ID no later than the ring, so that
// nodes of another cluster are recognized from the beginning.
func (e *IPAMEvents) Bootstrapped(ids map[netip.Prefix]ring.ClusterID) {
	PublishClusterIDs(ids, e.mesh)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bootstrapped = true
	e.update.Set()
}

// Reclaimed implements ipam.Events: the address space of a dead node belongs to another node.
func (e *IPAMEvents) Reclaimed(dead peer.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reclaimed = append(e.reclaimed, dead)
	e.update.Set()
}

// Updates returns the channel that receives a value after one or more reports. It has one receiver.
func (e *IPAMEvents) Updates() <-chan struct{} { return e.update.C() }

// Drain returns the reports since the last call.
func (e *IPAMEvents) Drain() (bootstrapped bool, reclaimed []peer.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	bootstrapped, reclaimed = e.bootstrapped, e.reclaimed
	e.bootstrapped, e.reclaimed = false, nil
	return bootstrapped, reclaimed
}

// PublishClusterIDs publishes by what bootstrap each range was divided, so that nodes of another cluster are recognized.
func PublishClusterIDs(ids map[netip.Prefix]ring.ClusterID, m *mesh.Mesh) {
	var list []mesh.ClusterID
	for cidr, id := range ids {
		sum := sha256.Sum256([]byte(cidr.String()))
		list = append(list, mesh.ClusterID{Range: binary.BigEndian.Uint32(sum[:]), By: binary.BigEndian.Uint32(id[:])})
	}
	slices.SortFunc(list, func(a, b mesh.ClusterID) int {
		return bytes.Compare(binary.BigEndian.AppendUint32(nil, a.Range), binary.BigEndian.AppendUint32(nil, b.Range))
	})
	m.SetClusterIDs(list)
}
