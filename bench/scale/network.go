package scale

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// gossipPort is the port of all nodes.
const gossipPort = 6783

// Queues of a host, as in a kernel: what does not fit is lost.
const (
	packetQueue = 1024
	streamQueue = 128
)

// retransmitTimeout is how much later a segment of a stream arrives that was lost once.
const retransmitTimeout = 200 * time.Millisecond

// Errors of a dialed stream.
var (
	errNoAnswer = errors.New("scale: no answer")
	errRefused  = errors.New("scale: connection refused")
)

// network connects the nodes of one process in memory. Packets and streams take the time of the link, packets may be lost, and streams
// then wait for the repetition. The seed decides about the nth message of each host.
type network struct {
	// constant
	seed            uint64
	latency, jitter time.Duration // in one direction; jitter is the most that is added
	loss            float64
	hosts           map[string]*host // by gossip address
}

// traffic is what a host has sent.
type traffic struct {
	Packets, PacketBytes uint64 // payload, without headers of IP and UDP
	Streams, StreamBytes uint64 // opened streams, and the bytes of both ends, without headers of IP and TCP
}

func (t traffic) bytes() uint64 { return t.PacketBytes + t.StreamBytes }

func (t traffic) plus(u traffic) traffic {
	return traffic{t.Packets + u.Packets, t.PacketBytes + u.PacketBytes, t.Streams + u.Streams, t.StreamBytes + u.StreamBytes}
}

func (t traffic) minus(u traffic) traffic {
	return traffic{t.Packets - u.Packets, t.PacketBytes - u.PacketBytes, t.Streams - u.Streams, t.StreamBytes - u.StreamBytes}
}

// host is the machine of a node. It outlives the processes of the node.
type host struct {
	// constant
	net   *network
	index uint64
	addr  netip.AddrPort
	udp   *net.UDPAddr
	tcp   *net.TCPAddr

	side    atomic.Int32  // hosts of different sides do not reach each other
	decided atomic.Uint64 // how many random decisions there were
	running atomic.Pointer[transport]

	packets, packetBytes, streams, streamBytes atomic.Uint64
}

// newHosts returns the n hosts of a new network.
func newHosts(n int, o Options) []*host {
	net := &network{seed: o.Seed, latency: o.Latency, jitter: o.Jitter, loss: o.Loss, hosts: make(map[string]*host, n)}
	all := make([]*host, n)
	for i := range all {
		all[i] = net.host(i)
		net.hosts[all[i].addr.String()] = all[i]
	}
	return all
}

func (n *network) host(i int) *host {
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}), gossipPort)
	return &host{net: n, index: uint64(i), addr: addr, udp: net.UDPAddrFromAddrPort(addr), tcp: net.TCPAddrFromAddrPort(addr)}
}

// sent returns what the host has sent so far.
func (h *host) sent() traffic {
	return traffic{h.packets.Load(), h.packetBytes.Load(), h.streams.Load(), h.streamBytes.Load()}
}

// decide returns how long the next message of the host takes, and whether it is lost.
func (h *host) decide() (delay time.Duration, lost bool) {
	var dice rand.PCG
	dice.Seed(h.net.seed, h.index<<40|h.decided.Add(1))
	delay = h.net.latency
	if h.net.jitter > 0 {
		delay += time.Duration(dice.Uint64() % uint64(h.net.jitter))
	}
	return delay, h.net.loss > 0 && float64(dice.Uint64()>>11)/(1<<53) < h.net.loss
}

// reaches reports whether the network carries anything from h to another host.
func (h *host) reaches(to *host) bool { return h.side.Load() == to.side.Load() }

// transport is the memberlist.Transport of one process of a node.
type transport struct {
	host      *host
	packets   chan *memberlist.Packet
	streams   chan net.Conn
	accepting sync.Mutex
	closed    bool // guarded by accepting
}

var _ memberlist.Transport = (*transport)(nil)

// listen returns the transport of a new process on the host.
func (h *host) listen() *transport {
	t := &transport{host: h, packets: make(chan *memberlist.Packet, packetQueue), streams: make(chan net.Conn, streamQueue)}
	h.running.Store(t)
	return t
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.host.addr.Addr().AsSlice(), gossipPort, nil
}

// WriteTo implements memberlist.Transport.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	t.host.packets.Add(1)
	t.host.packetBytes.Add(uint64(len(b)))
	to := t.host.net.hosts[addr]
	delay, lost := t.host.decide()
	if to == nil || lost || !t.host.reaches(to) {
		return now, nil
	}
	p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: t.host.udp}
	time.AfterFunc(delay, func() { to.receive(p) })
	return now, nil
}

// receive hands a packet to the process that runs now.
func (h *host) receive(p *memberlist.Packet) {
	t := h.running.Load()
	if t == nil {
		return
	}
	p.Timestamp = time.Now()
	select {
	case t.packets <- p:
	default: // the buffer of the socket is full
	}
}

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	to := t.host.net.hosts[addr]
	if to == nil || !t.host.reaches(to) {
		time.Sleep(timeout)
		return nil, errNoAnswer
	}
	for range 2 { // there and back
		delay, lost := t.host.decide()
		if lost {
			delay += time.Second // the first repetition of a SYN
		}
		time.Sleep(delay)
	}
	if there := to.running.Load(); there != nil {
		near, far := newStream(t.host, to)
		if there.accept(far) {
			t.host.streams.Add(1)
			return near, nil
		}
	}
	return nil, errRefused
}

// accept queues a stream for the process, and reports whether it could.
func (t *transport) accept(c net.Conn) bool {
	t.accepting.Lock()
	defer t.accepting.Unlock()
	if t.closed {
		return false
	}
	select {
	case t.streams <- c:
		return true
	default:
		return false
	}
}

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown implements memberlist.Transport.
func (t *transport) Shutdown() error {
	t.host.running.CompareAndSwap(t, nil)
	t.accepting.Lock()
	t.closed = true
	t.accepting.Unlock()
	for {
		select {
		case c := <-t.streams:
			_ = c.Close()
		default:
			return nil
		}
	}
}
