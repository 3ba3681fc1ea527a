package mesh

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"weft/internal/peer"
	"weft/internal/ratelimit"
	"weft/mesh/freshness"
	"weft/mesh/gate"
	"weft/mesh/seal"
)

// sealedTransport is memberlist's transport. memberlist itself runs without keys: everything that it sends and receives
// passes here, and is sealed and checked for freshness (docs/adr/0036-fresh-gossip.md).
//
//	packets:  memberlist -> WriteToAddress -> seal -> network or tunnel
//	          network (run) or tunnel (runTunnel) -> receivePacket: open, freshness, sieve -> PacketCh -> memberlist
//	streams:  memberlist -> DialAddressTimeout -> openStream: handshake -> memberConn
//	          network (runStreams) -> gate -> serve: handshake -> a unicast, or memberConn -> StreamCh -> memberlist
type sealedTransport struct {
	// constant
	under   memberlist.Transport // the network
	mesh    *Mesh
	end     seal.End
	plain   *seal.Keys // those of a node without a secret
	born    time.Time  // when uptimes began, with its monotonic reading
	packets chan *memberlist.Packet
	streams chan net.Conn
	inbox   chan tunnelMessage
	gate    *gate.Gate
	budget  *seal.Budget  // of the streams that others open
	replies *seal.Budget  // of the streams that this node opens: no other node can use it up alone
	stop    chan struct{} // closed by Shutdown
	once    sync.Once

	counter atomic.Uint64 // of the latest packet that was sent

	mu        sync.Mutex
	heard     map[string]time.Time // guarded by mu: when the latest packet came, by address
	predialed map[string]net.Conn  // guarded by mu: streams that were opened for memberlist's Join, by the name that it dials
	joins     uint64               // guarded by mu: how many of them there were
	answers   ratelimit.Bucket     // guarded by mu: to challenges

	freshMu sync.Mutex
	fresh   *freshness.Table[heldPacket] // guarded by freshMu
}

var _ memberlist.NodeAwareTransport = (*sealedTransport)(nil)

const (
	// packetQueue is how many received packets may wait for memberlist; further ones wait in the network.
	packetQueue = 64
	// tunnelQueue is how many messages from the tunnel may wait; further ones are dropped and counted.
	tunnelQueue = 256
	// receiveBudget is how many bytes the messages may have in all that are being received over the streams that others have opened,
	// and as many over those that this node has opened.
	receiveBudget = 64 << 20 // at least 3 * seal.MaxMessage
)

func newSealedTransport(m *Mesh) (*sealedTransport, error) {
	now := time.Now()
	plain, err := seal.Derive([seal.KeyLen]byte{}, m.cfg.cluster())
	return &sealedTransport{
		under: m.cfg.Transport, mesh: m, born: now, plain: plain,
		end:     seal.End{Private: m.cfg.Identity.Private(), Public: m.cfg.Identity.Public},
		packets: make(chan *memberlist.Packet, packetQueue), streams: make(chan net.Conn),
		inbox: make(chan tunnelMessage, tunnelQueue), stop: make(chan struct{}), gate: gate.New(),
		budget: seal.NewBudget(receiveBudget), replies: seal.NewBudget(receiveBudget),
		heard: make(map[string]time.Time), predialed: make(map[string]net.Conn),
		answers: ratelimit.New(answersPerSecond, answersPerSecond), fresh: freshness.New[heldPacket](now, newNonce),
	}, err
}

// uptime returns how long this process has run.
func (t *sealedTransport) uptime() time.Duration { return time.Since(t.born) }

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *sealedTransport) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	return t.under.FinalAdvertiseAddr(ip, port)
}

// PacketCh implements memberlist.Transport.
func (t *sealedTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *sealedTransport) StreamCh() <-chan net.Conn { return t.streams }

// WriteTo implements memberlist.Transport.
func (t *sealedTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *sealedTransport) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	id, _ := idOf(to.Name)
	return t.sendPacket(seal.Packet, b, id, to.Addr)
}

// sendPacket seals a packet and sends it: through the tunnel to a node that can only dial out, both through the tunnel and
// to its address to a node from which no packet came lately, and to their address to all other nodes. id is zero if it is
// not known.
func (t *sealedTransport) sendPacket(kind seal.Type, body []byte, id peer.ID, addr string) (time.Time, error) {
	dialOut := !id.IsZero() && t.mesh.links.dialOut(id)
	if tunnel := t.mesh.cfg.Tunnel; tunnel != nil && !id.IsZero() {
		unheard := !t.mesh.links.dialOut(t.mesh.cfg.Identity.ID) && !t.heardLately(addr) && tunnel.Open(id)
		if dialOut || unheard {
			t.sendTunneled(id, t.seal(kind, body, id))
		}
		if dialOut {
			return time.Now(), nil
		}
	}
	return t.under.WriteTo(t.seal(kind, body, id), addr)
}

// sendTunneled sends a sealed packet through the tunnel.
func (t *sealedTransport) sendTunneled(id peer.ID, packet []byte) {
	if err := t.mesh.cfg.Tunnel.Send(id, append([]byte{tunnelPacket}, packet...)); err != nil {
		t.mesh.log.Debug("gossip not tunneled", "peer", id, "err", err)
	}
}

// seal returns a packet to a node under the key that all members have, nil if no key may seal.
func (t *sealedTransport) seal(kind seal.Type, body []byte, to peer.ID) []byte {
	sealer := t.mesh.keys.InUse().Sealer
	if sealer == nil {
		return nil
	}
	return sealer.Seal(kind, seal.Header{
		Sender: t.mesh.cfg.Identity.ID, Instance: t.mesh.instance, Counter: t.counter.Add(1), Uptime: t.uptime(), Receiver: to,
	}, body)
}

// DialTimeout implements memberlist.Transport.
func (t *sealedTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *sealedTransport) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if conn := t.takePredialed(to.Name); conn != nil {
		return conn, nil
	}
	id, known := idOf(to.Name)
	if known && t.mesh.links.dialOut(id) {
		return nil, errDialOut
	}
	s, err := t.openStream(to.Addr, id, timeout)
	if err != nil {
		return nil, err
	}
	return newMemberConn(t, s), nil
}

// Shutdown implements memberlist.Transport. A transport of memberlist's ends only after all that it has received was read. So
// packets and streams that arrive meanwhile are read and dropped: otherwise any sender could keep a node from stopping.
func (t *sealedTransport) Shutdown() error {
	t.once.Do(func() { close(t.stop) })
	t.gate.Close()
	down := make(chan struct{})
	var draining sync.WaitGroup
	draining.Go(func() { t.drain(down) })
	err := t.under.Shutdown()
	close(down)
	draining.Wait()
	return err
}

// drain drops what the network receives until down is closed.
func (t *sealedTransport) drain(down <-chan struct{}) {
	for {
		select {
		case <-down:
			return
		case <-t.under.PacketCh():
		case conn := <-t.under.StreamCh():
			_ = conn.Close()
		}
	}
}

// run passes packets from the network to memberlist until Shutdown.
func (t *sealedTransport) run() {
	for {
		select {
		case <-t.stop:
			return
		case p := <-t.under.PacketCh():
			t.receivePacket(p.Buf, origin{addr: p.From}, p.Timestamp)
		}
	}
}

// heardFor is how long an address is assumed to work after a packet came from it.
const heardFor = time.Minute

// maxHeard bounds the addresses for which the time of their latest packet is kept.
const maxHeard = maxMembers

// recordHeard records that a fresh packet came from addr. At the bound all other addresses are forgotten.
func (t *sealedTransport) recordHeard(addr string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.heard[addr]; !known && len(t.heard) >= maxHeard {
		clear(t.heard)
	}
	t.heard[addr] = time.Now()
}

// heardLately reports whether a fresh packet came from addr within heardFor.
func (t *sealedTransport) heardLately(addr string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, known := t.heard[addr]
	return known && time.Since(at) < heardFor
}
