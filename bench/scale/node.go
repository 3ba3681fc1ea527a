package scale

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/controlplane"
	"weft/internal/dns"
	"weft/internal/peer"
	"weft/internal/target"
	"weft/ipam"
	"weft/ipam/store/storetest"
	"weft/mesh"
	"weft/mesh/addressbook"
	"weft/mesh/topology"
)

// addressRange is the range of all networks.
var addressRange = netip.MustParsePrefix("10.32.0.0/12")

// attachPause is the pause before another attempt to get an address, as a container runtime makes it.
const attachPause = time.Second

// node is one node without its datapath, over several processes.
type node struct {
	// constant
	host      *host
	name      string
	identity  mesh.Identity
	key       mesh.GossipKey
	peers     []target.Target
	initPeers int
	log       *slog.Logger

	// the state directory
	targets *addressbook.Book
	store   *storetest.Memory
	names   savedNames

	process atomic.Pointer[process] // nil while none runs

	mu     sync.Mutex
	pods   int                   // guarded by mu: how many have an address, or wait for one
	leased map[string]netip.Addr // guarded by mu: the addresses that the allocator has returned, by holder
}

// process is one run of a node.
type process struct {
	mesh     *mesh.Mesh
	ipam     *ipam.Allocator
	registry *dns.Registry
	members  *view
	ctx      context.Context // ends with the process
	cancel   context.CancelFunc
	group    *errgroup.Group
}

// view is the membership as a node sees it. It counts, so that the measurement need not look through all members of all nodes.
type view struct {
	*controlplane.Members
	alive atomic.Int64
}

// MembersChanged implements mesh.Observer.
func (v *view) MembersChanged(list []mesh.Member) {
	alive := 0
	for i := range list {
		if list[i].State == mesh.StateAlive {
			alive++
		}
	}
	v.alive.Store(int64(alive))
	v.Members.MembersChanged(list)
}

// savedNames is the file of a node's names. It implements dns.Store.
type savedNames struct {
	mu    sync.Mutex
	state []byte // guarded by mu
}

// Save implements dns.Store.
func (s *savedNames) Save(state []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
	return nil
}

func (s *savedNames) load() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// newNode returns a node without a process. Its targets are the bootstrap nodes with the given numbers.
func newNode(h *host, key mesh.GossipKey, hosts []*host, targets [2]int, log *slog.Logger) (*node, error) {
	id, err := mesh.NewIdentity()
	if err != nil {
		return nil, err
	}
	n := &node{
		host: h, name: fmt.Sprintf("node-%d", h.index), identity: id, key: key, initPeers: bootstrapNodesOf(len(hosts)), log: log,
		targets: addressbook.InMemory(), store: storetest.NewMemory(), leased: make(map[string]netip.Addr),
	}
	n.log = log.With("node", n.name)
	for _, i := range targets {
		if at := hosts[i].addr; at != h.addr {
			n.peers = append(n.peers, target.Target{Host: at.Addr().String(), Port: at.Port()})
		}
	}
	return n, nil
}

// start starts a process of the node, with its state.
func (n *node) start() error {
	p := &process{members: &view{Members: controlplane.NewMembers(n.identity.ID, n.name)}}
	var err error
	if p.mesh, err = mesh.New(mesh.Config{
		Identity: n.identity, Name: n.name, Ranges: []netip.Prefix{addressRange}, Version: "v1.0.0", Transport: n.host.listen(),
		Targets: n.targets, Peers: n.peers, Advertise: n.host.addr, DataPort: gossipPort + 1, Keys: []mesh.GossipKey{n.key},
		Discovery: true, Observer: p.members, Logger: n.log,
	}); err != nil {
		return err
	}
	events := controlplane.NewIPAMEvents(p.mesh)
	if p.ipam, err = ipam.New(ipam.Config{
		Self: n.identity.ID, Ranges: []netip.Prefix{addressRange}, InitPeers: n.initPeers, Store: n.store.Reopen(),
		Gossip:     controlplane.GossipOn(p.mesh, mesh.ChannelIPAM, n.log),
		Membership: controlplane.ForIPAM(p.members.Members, p.mesh), Events: events, Logger: n.log,
	}); err != nil {
		return err
	}
	p.mesh.Register(mesh.ChannelIPAM, p.ipam)
	controlplane.PublishClusterIDs(p.ipam.ClusterIDs(), p.mesh)
	if p.registry, err = dns.NewRegistry(dns.RegistryConfig{
		Self: n.identity.ID, Domain: "weft.local", Initial: n.names.load(), Store: &n.names, Logger: n.log,
		Gossip:     controlplane.GossipOn(p.mesh, mesh.ChannelDNS, n.log),
		Membership: controlplane.ForDNS(p.members.Members, p.mesh),
	}); err != nil {
		return err
	}
	p.mesh.Register(mesh.ChannelDNS, p.registry)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.group, p.ctx = errgroup.WithContext(p.ctx)
	p.group.Go(func() error { return p.mesh.Run(p.ctx) })
	p.group.Go(func() error { return p.ipam.Run(p.ctx) })
	p.group.Go(func() error { return p.handleEvents(events) })
	n.process.Store(p)
	n.attach(p)
	return nil
}

// handleEvents does what the daemon does when the membership changes. No address space is reclaimed in a measurement.
func (p *process) handleEvents(events *controlplane.IPAMEvents) error {
	for {
		select {
		case <-p.ctx.Done():
			return nil
		case <-p.members.Updates():
			p.members.ForgetLeft(p.registry)
		case <-events.Updates():
			events.Drain()
		}
	}
}

// addPods makes the node request addresses for more pods, now or when it runs.
func (n *node) addPods(count int) {
	n.mu.Lock()
	n.pods += count
	n.mu.Unlock()
	if p := n.process.Load(); p != nil {
		n.attach(p)
	}
}

// attach requests the addresses that the pods of the node lack.
func (n *node) attach(p *process) {
	n.mu.Lock()
	pods := n.pods
	n.mu.Unlock()
	for i := range pods {
		holder := fmt.Sprintf("pod-%d", i)
		n.mu.Lock()
		_, has := n.leased[holder]
		n.mu.Unlock()
		if !has {
			p.group.Go(func() error { return n.attachPod(p, holder) })
		}
	}
}

// attachPod requests an address for a pod until it gets one, and names it.
func (n *node) attachPod(p *process, holder string) error {
	for {
		lease, err := p.ipam.Allocate(p.ctx, holder, addressRange)
		if err == nil {
			n.mu.Lock()
			n.leased[holder] = lease.Addr
			n.mu.Unlock()
			return p.registry.Add(holder+"."+n.name, holder, lease.Addr)
		}
		if errors.Is(err, ipam.ErrLeft) {
			return err
		}
		select {
		case <-p.ctx.Done():
			return nil
		case <-time.After(attachPause):
		}
	}
}

// stop ends the process of the node as a signal does, without leaving the network.
func (n *node) stop() error {
	p := n.process.Swap(nil)
	if p == nil {
		return nil
	}
	p.cancel()
	err := p.group.Wait()
	return errors.Join(err, n.store.Close())
}

// reportBroken publishes that the link to another node is broken, and after some time that no link is.
func (n *node) reportBroken(other peer.ID, after time.Duration) {
	if p := n.process.Load(); p != nil {
		p.mesh.SetLinks(topology.Links{Broken: []peer.ID{other}})
		time.Sleep(after)
		p.mesh.SetLinks(topology.Links{})
	}
}

// hasLeases reports whether all pods of the node have an address.
func (n *node) hasLeases() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.leased) == n.pods
}

// checkLeases checks the leases of all nodes: none that a node was given may be lost, and no address may have two.
func checkLeases(nodes []*node) (leases int, err error) {
	owners := make(map[netip.Addr]*node)
	for _, n := range nodes {
		p := n.process.Load()
		if p == nil {
			return 0, fmt.Errorf("%s does not run", n.name)
		}
		has := make(map[string]netip.Addr)
		for _, l := range p.ipam.Leases() {
			if other := owners[l.Addr]; other != nil {
				err = errors.Join(err, fmt.Errorf("%s is leased by %s and by %s", l.Addr, other.name, n.name))
			}
			owners[l.Addr], has[l.Holder] = n, l.Addr
		}
		n.mu.Lock()
		for holder, addr := range n.leased {
			if has[holder] != addr {
				err = errors.Join(err, fmt.Errorf("%s lost the lease of %s for %s", n.name, addr, holder))
			}
		}
		n.mu.Unlock()
	}
	return len(owners), err
}
