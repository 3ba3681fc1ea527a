package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/internal/signal"
	"weft/mesh/admission"
	"weft/mesh/fragment"
	"weft/mesh/keyring"
	"weft/mesh/memberlog"
	"weft/mesh/metadata"
	"weft/mesh/mismatch"
	"weft/mesh/outqueue"
	"weft/mesh/seal"
	"weft/mesh/topology"
)

// maxPacket is the length in bytes of the longest sealed packet: it fits the tunnel. udpBuffer is that of the longest
// packet that memberlist makes.
const (
	maxPacket = 1200
	udpBuffer = maxPacket - seal.Overhead
)

// streamTimeout bounds one exchange over a stream.
const streamTimeout = 5 * time.Second

// leaveTimeout bounds how long Leave waits until the other nodes have received its message.
const leaveTimeout = 2 * time.Second

// ErrNotRunning is returned by operations that need Run to be running.
var ErrNotRunning = errors.New("mesh: not running")

// Mesh is one node's membership in the network. Make it with New and run it with Run; the other methods may be called
// concurrently.
type Mesh struct {
	// constant after New
	cfg           Config
	log           *slog.Logger
	roster        *roster
	keys          *keyring.Ring
	keyMismatches *mismatch.Recent
	links         *linkStates
	fragments     *fragment.Fragmenter
	transport     *sealedTransport
	credentials   Credentials
	identities    *admission.Admission
	queue         outqueue.Queue
	channels      map[ChannelID]Channel // filled by Register before Run
	dialer        *dialer
	started       time.Time
	instance      uint64
	unicasts      chan outgoing
	contests      chan netip.AddrPort // where gossip has this node's own ID
	failed        chan error
	metaChanged   signal.Chan   // set while this node's new metadata is not published yet
	publishing    chan struct{} // full while metadata of this node is waited for to reach another node
	moved         signal.Chan   // set while this node is not known at its new address yet
	dropped       signal.Chan   // set when a broadcast was dropped before it was sent often enough

	// constant in Run
	seenBefore map[peer.ID]string // the members of earlier runs, as Targets.Seen

	// guarded by a lock of its own
	clusterIDs clusterIDs

	// atomic
	list         atomic.Pointer[memberlist.Memberlist] // nil before Run and after it
	at           atomic.Pointer[place]                 // never nil: where the other nodes shall find this one
	leaving      atomic.Bool
	contested    atomic.Int64 // when an address was last queued in contests: Unix time in nanoseconds
	vni          atomic.Uint32
	direct       atomic.Pointer[[]byte]                     // nil: none
	gateway      atomic.Pointer[ether.Addr]                 // nil: none
	routes       atomic.Pointer[map[peer.ID]topology.Route] // nil before the first computation
	keyContested atomic.Bool                                // gossip has this node's ID at another address
	drops        drops
	mismatchLog  memberlog.Limiter
	rejected     rejections
}

// Listen binds the gossip port, UDP and TCP, on addr; an unspecified addr means all addresses.
func Listen(addr netip.AddrPort, logger *slog.Logger) (memberlist.Transport, error) {
	t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{addr.Addr().String()},
		BindPort:  int(addr.Port()),
		Logger:    memberlog.New(orDiscard(logger)),
	})
	if err != nil {
		return nil, fmt.Errorf("mesh: listening for gossip: %w", err)
	}
	return t, nil
}

// New returns an idle Mesh.
func New(cfg Config) (*Mesh, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	m := &Mesh{
		cfg:           cfg,
		log:           orDiscard(cfg.Logger),
		keyMismatches: mismatch.NewRecent(),
		channels:      make(map[ChannelID]Channel),
		started:       time.Now(),
		instance:      rand.Uint64(),
		unicasts:      make(chan outgoing, unicastQueue),
		contests:      make(chan netip.AddrPort, contestDials),
		credentials:   cfg.Credentials,
		failed:        make(chan error, 1),
		metaChanged:   signal.New(),
		publishing:    make(chan struct{}, 1),
		moved:         signal.New(),
		dropped:       signal.New(),
	}
	m.at.Store(&place{cfg.Advertise, m.started})
	m.roster = newRoster(cfg.Identity.ID, cfg.Advertise, m.instance, m)
	var err error
	if m.keys, err = keyring.New(admission.WithCAs(cfg.Signed.CAs, cfg.Keys), cfg.cluster(), otherMembers{m}); err != nil {
		return nil, err
	}
	if m.identities, err = admission.New(admission.Config{
		Self: cfg.Identity.ID, Cluster: cfg.cluster(), Signed: cfg.Signed, Secrets: cfg.Keys, Store: cfg.Revoked, Keys: m.keys,
		Host: identityHost{m}, MaxBroadcast: MaxBroadcast, Logger: m.log,
	}); err != nil {
		return nil, err
	}
	if m.credentials == nil {
		m.credentials = m.identities
	}
	m.links = newLinkStates(cfg.Identity.ID, m.started, m.roster.change.Set, m.broadcastLinks, m.roster.isAlive)
	m.fragments = fragment.New(cfg.Tunnel)
	if m.transport, err = newSealedTransport(m); err != nil {
		return nil, err
	}
	m.channels[channelLinks], m.channels[channelIdentity] = m.links, m.identities
	m.dialer = newDialer(m)
	return m, nil
}

// Register adds a channel. It must be called before Run.
func (m *Mesh) Register(id ChannelID, c Channel) { m.channels[id] = c }

// Sender returns the sender of a channel. It may be used before the channel is registered.
func (m *Mesh) Sender(id ChannelID) Sender { return Sender{mesh: m, channel: id} }

// Run joins the network and stays in it until ctx ends (nil) or another node turns out to have the same key
// (ErrDuplicateKey). It closes the transport. The other members keep the node as alive for some seconds after Run has
// returned, so that a restart has no effect on them; Leave removes the node from the network
// (docs/adr/0002-sigterm-is-no-goodbye.md).
func (m *Mesh) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.seenBefore = m.cfg.Targets.Seen()
	list, err := memberlist.Create(m.listConfig())
	if err != nil {
		return fmt.Errorf("mesh: starting: %w", errors.Join(err, m.transport.Shutdown()))
	}
	m.list.Store(list)

	var wg, moves sync.WaitGroup
	moves.Go(func() { m.followAddress(ctx) })
	wg.Go(m.transport.run)
	wg.Go(m.transport.runTunnel)
	wg.Go(m.transport.runStreams)
	for range contestDials {
		wg.Go(func() { m.settleContests(ctx) })
	}
	wg.Go(func() { m.publishMeta(ctx) })
	wg.Go(func() { m.identities.Run(ctx) })
	for range unicastSenders {
		wg.Go(func() { m.sendUnicasts(ctx) })
	}
	wg.Go(func() { m.dialer.run(ctx) })
	err = m.watch(ctx)
	if errors.Is(err, ErrDuplicateKey) {
		// Without it the others would take this process for the node until they find it dead.
		err = errors.Join(err, m.Leave())
	}
	cancel()
	moves.Wait()                                                                    // from here on the list is not replaced
	shutdownErr := errors.Join(m.list.Swap(nil).Shutdown(), m.transport.Shutdown()) // ends the exchanges that the goroutines wait for
	wg.Wait()
	if err == nil && shutdownErr != nil {
		err = fmt.Errorf("mesh: stopping: %w", shutdownErr)
	}
	return err
}

// Joined returns a channel that is closed when every target was tried once, with or without success, and no other node
// was found that has this node's key. It stays open when Run ends before that.
func (m *Mesh) Joined() <-chan struct{} { return m.dialer.triedAll }

// Members returns all members, ordered by ID, including this node.
func (m *Mesh) Members() []Member { return m.annotate(m.roster.snapshot(time.Now())) }

// HealthScore returns memberlist's measure of this node's own health: 0 is healthy, a higher number is worse, -1 means
// not running.
func (m *Mesh) HealthScore() int {
	if list := m.list.Load(); list != nil {
		return list.GetHealthScore()
	}
	return -1
}

// Leave announces that this node leaves the network for good. It returns when the announcement was sent, or after
// leaveTimeout twice and publishTimeout at most. Run continues until its context ends.
func (m *Mesh) Leave() error {
	list := m.list.Load()
	if list == nil {
		return ErrNotRunning
	}
	m.publishing <- struct{}{}
	defer func() { <-m.publishing }()
	m.leaving.Store(true)
	err := list.UpdateNode(leaveTimeout) // the flag in the metadata distinguishes leaving from dying
	err = errors.Join(err, list.Leave(leaveTimeout))
	if err != nil {
		return fmt.Errorf("mesh: leaving: %w", err)
	}
	return nil
}

// SetVNI publishes the VNI of the VXLAN frames that this node accepts, of 24 bits; 0: it accepts none. It does not wait until other nodes
// have received it.
func (m *Mesh) SetVNI(vni uint32) {
	if m.vni.Swap(vni) != vni {
		m.metaChanged.Set()
	}
}

// SetDirect publishes what direct routing to this node needs (package direct), at most 255 bytes; none: it takes no part. It does not wait
// until other nodes have received it.
func (m *Mesh) SetDirect(b []byte) {
	if old := m.direct.Swap(&b); old == nil && len(b) > 0 || old != nil && !bytes.Equal(*old, b) {
		m.metaChanged.Set()
	}
}

// SetGateway publishes the MAC of this node's bridge, to which answers to clients outside of the overlay go back; zero: they do not. It
// does not wait until other nodes have received it.
func (m *Mesh) SetGateway(mac ether.Addr) {
	if old := m.gateway.Swap(&mac); old == nil && !mac.IsZero() || old != nil && *old != mac {
		m.metaChanged.Set()
	}
}

// ownGateway returns what the last SetGateway published.
func (m *Mesh) ownGateway() ether.Addr {
	if mac := m.gateway.Load(); mac != nil {
		return *mac
	}
	return ether.Addr{}
}

// publishMeta publishes new metadata of this node until ctx ends.
func (m *Mesh) publishMeta(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.metaChanged.C():
		}
		m.publish(time.Nanosecond)
	}
}

// publish publishes the metadata of this node: in exchanges of states at once, by gossip with the next packets. It waits until another
// node has it, for timeout at most, and first for other publications: a new one takes the place of one that is not sent yet, also of the
// one with which this node leaves.
func (m *Mesh) publish(timeout time.Duration) {
	m.publishing <- struct{}{}
	defer func() { <-m.publishing }()
	list := m.list.Load()
	if list == nil || m.leaving.Load() {
		return
	}
	// The next push/pull publishes it too. Without a wait the end of the timeout is what is expected.
	if err := list.UpdateNode(timeout); err != nil && timeout >= publishTimeout {
		m.log.Debug("node metadata not published", "err", err)
	}
}

// fail ends Run with err. Only the first error counts.
func (m *Mesh) fail(err error) {
	select {
	case m.failed <- err:
	default:
	}
}

func (m *Mesh) meta() metadata.Node {
	return metadata.Node{
		Leaving: m.leaving.Load(), DataPort: m.cfg.DataPort, ProtoMin: metadata.ProtocolMin, ProtoMax: metadata.ProtocolMax,
		Started: m.at.Load().since, Instance: m.instance, Public: m.cfg.Identity.Public, Name: m.cfg.Name,
		Capabilities: m.cfg.Capabilities, Accepts: m.keys.Fingerprints(), ClusterIDs: m.clusterIDs.list(),
		VNI: m.vni.Load(), Direct: m.ownDirect(), Gateway: m.ownGateway(),
		Ranges: m.cfg.Ranges, Version: m.cfg.Version, DNSDomain: m.cfg.DNSDomain,
		Certificate: m.identities.Show(),
	}
}

// ownDirect returns what the last SetDirect published.
func (m *Mesh) ownDirect() []byte {
	if b := m.direct.Load(); b != nil {
		return *b
	}
	return nil
}

func (m *Mesh) numMembers() int {
	if list := m.list.Load(); list != nil {
		return list.NumMembers()
	}
	return 1
}

func (m *Mesh) listConfig() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	at := m.at.Load().addr
	c.Name = nodeName(m.cfg.Identity.ID, at)
	c.Transport = sharedTransport{m.transport}
	c.UDPBufferSize = udpBuffer
	c.DisableTcpPingsForNode = func(name string) bool {
		id, known := idOf(name)
		return known && m.links.dialOut(id)
	}
	c.BindPort = int(at.Port())
	c.AdvertiseAddr = at.Addr().String()
	c.AdvertisePort = int(at.Port())
	c.TCPTimeout = streamTimeout
	c.EnableCompression = false // messages are short and binary
	c.Delegate = delegate{m}
	events := listEvents{m.roster, c.Name}
	c.Events, c.Alive, c.Ping, c.Merge = events, events, events, &m.clusterIDs
	c.Logger = memberlog.New(m.log)
	return c
}
