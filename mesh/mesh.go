package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"weft/internal/peer"
	"weft/mesh/topology"
)

// label separates weft's gossip from that of other users of memberlist on the same port.
const label = "weft"

// unicastSenders is how many unicasts are sent at once: each is a stream, and one may hang until its timeout.
const unicastSenders = 8

// udpBuffer is the longest packet in bytes that memberlist makes: it fits the tunnel.
const udpBuffer = 1200

// rememberFirst and rememberPause are at least between two times that the membership is written to disk: many that join at once cost
// few. It is the first at the start, when nothing is remembered yet, and doubles until it is the other.
const (
	rememberFirst = 100 * time.Millisecond
	rememberPause = time.Second
)

// lookPause is at least between two looks at a membership that changes.
const lookPause = 100 * time.Millisecond

// leaveTimeout bounds how long Leave waits for the others to hear of it.
const leaveTimeout = 2 * time.Second

// ErrNotRunning is returned by operations that need Run to be running.
var ErrNotRunning = errors.New("mesh: not running")

// Config is what a Mesh is made of. All fields but Capabilities, Keys, Tunnel, OnChange and Logger are required.
type Config struct {
	Identity Identity
	// Name is the nickname shown to people.
	Name string
	// Transport carries memberlist's packets and streams: Listen's, or one in memory in tests.
	Transport memberlist.Transport
	// Advertise is the gossip address that the others are told.
	Advertise netip.AddrPort
	// DataPort is the UDP port of the data plane that the others are told.
	DataPort uint16
	// Capabilities are bits that the others are told: what this node's data plane can do. The mesh gives them no meaning.
	Capabilities uint32
	// Keys seal the gossip, at most MaxKeys, the preferred one first; none leaves it plain. SetKeys replaces them.
	Keys []GossipKey
	// Targets are the persistent targets.
	Targets *Targets
	// Peers are targets for this run, from the command line; parsed already.
	Peers []Target
	// Discovery lets the node dial members that it learned of from others in earlier runs, or that it lost.
	Discovery bool
	// Tunnel carries gossip to nodes that are not reached at their gossip address; nil: there is none.
	Tunnel Tunnel
	// OnChange is called from Run with all members, ordered by ID, whenever one of them changes, and once at the start.
	// The slice is the callee's.
	OnChange func([]Member)
	// Logger receives the mesh's log; nil discards it.
	Logger *slog.Logger
}

// Mesh is one node's membership in the network. New makes it, Run runs it; other methods may be called concurrently.
type Mesh struct {
	// constant after New
	cfg       Config
	log       *slog.Logger
	roster    *roster
	keys      *keyring
	outside   *strangers
	links     *linkStates
	letters   *letters
	transport *tunneled
	queue     *memberlist.TransmitLimitedQueue
	channels  map[ChannelID]Channel // filled by Register before Run
	dialer    *dialer
	started   time.Time
	instance  uint64
	unicasts  chan outgoing
	failed    chan error
	retell    chan struct{} // holds a token while the others are to be told of new metadata

	foundings foundings

	// atomic
	list      atomic.Pointer[memberlist.Memberlist] // nil before Run and after it
	leaving   atomic.Bool
	asked     atomic.Int64                               // when this node last asked who else has its key: Unix time in nanoseconds
	routes    atomic.Pointer[map[peer.ID]topology.Route] // nil before the first
	contested atomic.Bool                                // somebody claims, or claimed, to have this node's key
	drops     drops
	rejected  rejections
}

// drops counts gossip that was thrown away, by reason.
type drops struct {
	malformed, unknownKind, misdirected, rejected, refused, unsent, queueFull atomic.Uint64
}

// outgoing is a message on its way to one member.
type outgoing struct {
	id  peer.ID // zero: whoever is at the address
	to  netip.AddrPort
	msg []byte
}

// Listen binds the gossip port, UDP and TCP, on addr; an unspecified addr means all addresses.
func Listen(addr netip.AddrPort, logger *slog.Logger) (memberlist.Transport, error) {
	t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{addr.Addr().String()},
		BindPort:  int(addr.Port()),
		Logger:    newLogger(orDiscard(logger), nil),
	})
	if err != nil {
		return nil, fmt.Errorf("mesh: listening for gossip: %w", err)
	}
	return t, nil
}

// New returns an idle Mesh.
func New(cfg Config) (*Mesh, error) {
	switch {
	case cfg.Identity.ID.IsZero():
		return nil, errors.New("mesh: no identity")
	case cfg.Transport == nil:
		return nil, errors.New("mesh: no transport")
	case !cfg.Advertise.IsValid():
		return nil, errors.New("mesh: no address to advertise")
	case len(cfg.Name) > maxName:
		return nil, fmt.Errorf("mesh: the name is longer than %d bytes", maxName)
	}
	m := &Mesh{
		cfg:      cfg,
		log:      orDiscard(cfg.Logger),
		outside:  newStrangers(),
		channels: make(map[ChannelID]Channel),
		started:  time.Now(),
		instance: rand.Uint64(),
		unicasts: make(chan outgoing, unicastQueue),
		failed:   make(chan error, 1),
		retell:   make(chan struct{}, 1),
	}
	m.roster = newRoster(cfg.Identity.ID, cfg.Advertise, m.clashed)
	m.roster.unfit = func(err error) { m.rejected.note(&m.drops.refused, peer.ID{}, err) }
	var err error
	if m.keys, err = newKeyring(cfg.Keys, m.Members); err != nil {
		return nil, err
	}
	m.roster.refuse = m.foundings.refuse
	m.links = newLinkStates(cfg.Identity.ID, m.started, m.roster.wake, m.broadcastLinks)
	m.letters = newLetters(m)
	m.transport = newTunneled(m)
	m.channels[channelLinks] = m.links
	m.queue = &memberlist.TransmitLimitedQueue{NumNodes: m.numMembers, RetransmitMult: 4}
	m.dialer = newDialer(m)
	return m, nil
}

// Register adds a channel; it is called before Run.
func (m *Mesh) Register(id ChannelID, c Channel) { m.channels[id] = c }

// Sender returns the sender of a channel; it may be used before the channel is registered.
func (m *Mesh) Sender(id ChannelID) Sender { return Sender{mesh: m, channel: id} }

// Run joins the network and stays in it until ctx ends (nil) or another node turns out to have the same key
// (ErrDuplicateKey). It closes the transport. Members keep the node as alive for some seconds after it, so that a
// restart goes unnoticed; Leave says good-bye.
func (m *Mesh) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	list, err := memberlist.Create(m.listConfig())
	if err != nil {
		return fmt.Errorf("mesh: starting: %w", errors.Join(err, m.transport.Shutdown()))
	}
	m.list.Store(list)

	var wg sync.WaitGroup
	wg.Go(m.transport.run)
	wg.Go(m.transport.runTunnel)
	wg.Go(func() { m.tellAgain(ctx, list) })
	for range unicastSenders {
		wg.Go(func() { m.sendUnicasts(ctx, list) })
	}
	wg.Go(func() { m.dialer.run(ctx) })
	err = m.watch(ctx)
	if errors.Is(err, ErrDuplicateKey) {
		err = errors.Join(err, m.Leave()) // or the others would hold this one for the node until it is dead to them
	}
	cancel()
	m.list.Store(nil)
	shut := list.Shutdown() // ends what the goroutines are waiting for
	wg.Wait()
	if err == nil && shut != nil {
		err = fmt.Errorf("mesh: stopping: %w", shut)
	}
	return err
}

// Joined is closed when every target was tried once, with or without success, and no other node has been found that
// has this node's key. It is not closed when Run ends before that.
func (m *Mesh) Joined() <-chan struct{} { return m.dialer.triedAll }

// Members returns all members, ordered by ID, this node among them.
func (m *Mesh) Members() []Member { return m.annotate(m.roster.snapshot(time.Now())) }

// HealthScore is memberlist's measure of this node's own health: 0 is well, higher is worse, -1 is not running.
func (m *Mesh) HealthScore() int {
	if list := m.list.Load(); list != nil {
		return list.GetHealthScore()
	}
	return -1
}

// Leave tells the others that this node goes for good and returns when they have heard, or after two seconds. Run
// goes on until its context ends.
func (m *Mesh) Leave() error {
	list := m.list.Load()
	if list == nil {
		return ErrNotRunning
	}
	m.leaving.Store(true)
	err := list.UpdateNode(leaveTimeout) // the flag in the metadata tells leaving from dying
	err = errors.Join(err, list.Leave(leaveTimeout))
	if err != nil {
		return fmt.Errorf("mesh: leaving: %w", err)
	}
	return nil
}

// tellAgain tells the others of new metadata until ctx ends.
func (m *Mesh) tellAgain(ctx context.Context, list *memberlist.Memberlist) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.retell:
		}
		if err := list.UpdateNode(tellTimeout); err != nil { // they hear of it with the next exchange of states
			m.log.Debug("telling the others of this node", "err", err)
		}
	}
}

// watch hands out snapshots until ctx ends or the node has to give way.
func (m *Mesh) watch(ctx context.Context) error {
	defer m.remember()
	var looked, written time.Time
	var later <-chan time.Time // when the membership is to be written; nil: it is
	pause := rememberFirst
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-m.failed:
			return err
		case <-later:
			m.remember()
			written, later = time.Now(), nil
			pause = min(2*pause, rememberPause)
			continue
		case <-m.roster.change:
		}
		select { // while many nodes join, each look takes in as many of them as have come since the last
		case <-ctx.Done():
			return nil
		case <-time.After(lookPause - time.Since(looked)):
		}
		looked = time.Now()
		members := m.roster.snapshot(time.Now())
		m.links.forget(members)
		m.route(members)
		m.annotate(members)
		m.settleKeys()
		if m.cfg.OnChange != nil {
			m.cfg.OnChange(slices.Clone(members))
		}
		if later == nil {
			later = time.After(pause - time.Since(written)) // at once, if that is past
		}
	}
}

// settleKeys has gossip sealed so that all members understand it.
func (m *Mesh) settleKeys() {
	if err := m.keys.settle(); err != nil {
		m.log.Error("choosing a secret that all members have", "err", err)
	}
}

// remember keeps on disk where the members are that may have to be found again after a restart.
func (m *Mesh) remember() {
	at := make(map[peer.ID]string)
	var gone []peer.ID
	for _, member := range m.Members() {
		switch {
		case member.Self:
		case member.State == StateAlive:
			at[member.ID] = member.GossipAddr().String()
		case member.State == StateLeft:
			gone = append(gone, member.ID)
		}
	}
	if err := m.cfg.Targets.RecordSeen(at, gone); err != nil {
		m.log.Warn("remembering the members", "err", err)
	}
}

// Known returns the nodes of the network that have not left: the members that are alive or dead, and those that were seen in
// earlier runs and are still to be found.
func (m *Mesh) Known() (ids []peer.ID) {
	seen := m.cfg.Targets.Seen()
	for _, member := range m.Members() {
		delete(seen, member.ID)
		if member.State != StateLeft {
			ids = append(ids, member.ID)
		}
	}
	return append(ids, slices.Collect(maps.Keys(seen))...)
}

// Forget has a node that is not alive count as one that has left: it is not looked for any more, and soon not listed. It may
// join again.
func (m *Mesh) Forget(id peer.ID) error {
	if !m.roster.forget(id) {
		return nil
	}
	m.roster.wake()
	return m.cfg.Targets.RecordSeen(nil, []peer.ID{id})
}

// fail ends Run with err; only the first counts.
func (m *Mesh) fail(err error) {
	select {
	case m.failed <- err:
	default:
	}
}

func (m *Mesh) enqueue(o outgoing) error {
	select {
	case m.unicasts <- o:
		return nil
	default:
		m.drops.queueFull.Add(1)
		return ErrQueueFull
	}
}

func (m *Mesh) sendUnicasts(ctx context.Context, list *memberlist.Memberlist) {
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-m.unicasts:
			if err := m.send(ctx, list, o); err != nil {
				m.drops.unsent.Add(1)
				m.log.Debug("message not sent", "addr", o.to, "err", err)
			}
		}
	}
}

// send sends a message over a stream, or where none leads to the member as a letter.
func (m *Mesh) send(ctx context.Context, list *memberlist.Memberlist, o outgoing) error {
	err := errDialOut
	if o.id.IsZero() || !m.links.dialOut(o.id) {
		to := &memberlist.Node{Name: nodeName(o.id, o.to), Addr: o.to.Addr().AsSlice(), Port: o.to.Port()}
		if err = list.SendReliable(to, o.msg); err == nil || o.id.IsZero() || m.cfg.Tunnel == nil || !m.cfg.Tunnel.Open(o.id) {
			return err
		}
	}
	if m.cfg.Tunnel == nil {
		return err
	}
	return m.letters.send(ctx, o.id, o.msg)
}

func (m *Mesh) meta() meta {
	return meta{
		leaving: m.leaving.Load(), dataPort: m.cfg.DataPort, protoMin: protocolMin, protoMax: protocolMax,
		started: m.started, instance: m.instance, public: m.cfg.Identity.Public, name: m.cfg.Name,
		capabilities: m.cfg.Capabilities, accepts: m.keys.fingerprints(), foundings: m.foundings.list(),
	}
}

func (m *Mesh) numMembers() int {
	if list := m.list.Load(); list != nil {
		return list.NumMembers()
	}
	return 1
}

func (m *Mesh) listConfig() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = nodeName(m.cfg.Identity.ID, m.cfg.Advertise)
	c.Transport = m.transport
	c.UDPBufferSize = udpBuffer
	c.DisableTcpPingsForNode = func(name string) bool {
		id, known := idOf(name)
		return known && m.links.dialOut(id)
	}
	c.BindPort = int(m.cfg.Advertise.Port())
	c.AdvertiseAddr = m.cfg.Advertise.Addr().String()
	c.AdvertisePort = int(m.cfg.Advertise.Port())
	c.Label = label
	c.TCPTimeout = 5 * time.Second
	c.EnableCompression = false // messages are short and binary
	c.Delegate = delegate{m}
	c.Events, c.Alive, c.Ping, c.Merge = m.roster, m.roster, m.roster, &m.foundings
	c.Logger = newLogger(m.log, m.outside)
	if m.keys.sealed() {
		c.Keyring, c.GossipVerifyIncoming, c.GossipVerifyOutgoing = m.keys.ring, true, true
	}
	return c
}

func orDiscard(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
