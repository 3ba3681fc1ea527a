package sieve

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

// seen counts the messages that a test's memberlists have sent, by kind, and keeps those that the sieve refuses.
type seen struct {
	mu      sync.Mutex
	packets map[kind]int // guarded by mu
	streams map[kind]int // guarded by mu
	refused []error      // guarded by mu
}

func (s *seen) packet(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := Packet(b, maxUint32); err != nil {
		s.refused = append(s.refused, fmt.Errorf("packet %q: %w", b, err))
	}
	for _, m := range messages(b) {
		s.packets[kind(m[0])]++
	}
}

// messages returns a packet, and all messages in it.
func messages(b []byte) [][]byte {
	list := [][]byte{b}
	if kind(b[0]) == kindChecksum {
		b = b[checksumHeader:]
		list = append(list, b)
	}
	if kind(b[0]) == kindCompound {
		n := int(b[1])
		for i, rest := 0, b[2+2*n:]; i < n; i++ {
			length := binary.BigEndian.Uint16(b[2+2*i:])
			list, rest = append(list, rest[:length]), rest[length:]
		}
	}
	return list
}

func (s *seen) stream(b []byte, check func([]byte, uint32) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := error(nil)
	if kind(b[0]) == kindUser { // weft sends its own messages beside memberlist
		want = errKind
	}
	if err := check(b, maxUint32); !errors.Is(err, want) {
		s.refused = append(s.refused, fmt.Errorf("stream %q: %w", b, err))
	}
	s.streams[kind(b[0])]++
}

// fabric connects memberlists, and shows all that they send to the sieve.
type fabric struct {
	seen

	nodes map[string]*port // constant once the memberlists run
}

// port is one node's memberlist.Transport.
type port struct {
	fabric  *fabric
	addr    netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn

	mu   sync.Mutex
	deaf bool // guarded by mu: it receives no packets
}

func newFabric() *fabric {
	return &fabric{seen: seen{packets: map[kind]int{}, streams: map[kind]int{}}, nodes: map[string]*port{}}
}

func (f *fabric) port(addr netip.AddrPort) *port {
	p := &port{fabric: f, addr: addr, packets: make(chan *memberlist.Packet, 256), streams: make(chan net.Conn, 16)}
	f.nodes[addr.String()] = p
	return p
}

func (p *port) setDeaf(deaf bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = deaf
}

func (p *port) FinalAdvertiseAddr(ip string, n int) (net.IP, int, error) {
	return net.ParseIP(ip), n, nil
}

func (p *port) WriteTo(b []byte, addr string) (time.Time, error) {
	p.fabric.packet(b)
	to := p.fabric.nodes[addr]
	now := time.Now()
	if to == nil {
		return now, nil
	}
	to.mu.Lock()
	defer to.mu.Unlock()
	if !to.deaf {
		select {
		case to.packets <- &memberlist.Packet{Buf: slices.Clone(b), From: net.UDPAddrFromAddrPort(p.addr), Timestamp: now}:
		default:
		}
	}
	return now, nil
}

var errUnreachable = errors.New("test: no node there")

func (p *port) DialTimeout(addr string, _ time.Duration) (net.Conn, error) {
	to := p.fabric.nodes[addr]
	if to == nil {
		return nil, errUnreachable
	}
	near, far := net.Pipe()
	to.streams <- &shownConn{far, func(b []byte) { p.fabric.stream(b, Reply) }}
	return &shownConn{near, func(b []byte) { p.fabric.stream(b, Stream) }}, nil
}

func (p *port) PacketCh() <-chan *memberlist.Packet { return p.packets }
func (p *port) StreamCh() <-chan net.Conn           { return p.streams }
func (p *port) Shutdown() error                     { return nil }

// shownConn shows what is written; memberlist writes each message of a stream at once.
type shownConn struct {
	net.Conn
	show func([]byte)
}

func (c *shownConn) Write(b []byte) (int, error) {
	c.show(b)
	return c.Conn.Write(b)
}

func listConfig(p *port, id byte) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = fmt.Sprintf("%016x@%s", id, p.addr)
	c.Transport = p
	c.AdvertiseAddr, c.AdvertisePort, c.BindPort = p.addr.Addr().String(), int(p.addr.Port()), int(p.addr.Port())
	c.EnableCompression = false
	c.Delegate = &chatter{}
	c.Logger = log.New(io.Discard, "", 0)
	return c
}

// chatter is a delegate with metadata, state and one broadcast.
type chatter struct {
	mu   sync.Mutex
	meta []byte   // guarded by mu
	cast [][]byte // guarded by mu
}

func (c *chatter) NodeMeta(int) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]byte("metadata"), c.meta...)
}

func (c *chatter) NotifyMsg([]byte) {}
func (c *chatter) GetBroadcasts(int, int) [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	cast := c.cast
	c.cast = nil
	return cast
}
func (c *chatter) LocalState(bool) []byte        { return make([]byte, 300) }
func (c *chatter) MergeRemoteState([]byte, bool) {}

// TestAcceptsAllThatMemberlistSends: real memberlists of both families join, probe, lose packets, suspect, update, leave and
// send user messages, and the sieve refuses nothing of it.
func TestAcceptsAllThatMemberlistSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFabric()
		var lists []*memberlist.Memberlist
		defer func() {
			for _, list := range lists {
				_ = list.Shutdown()
			}
			time.Sleep(time.Minute) // until their goroutines have ended
		}()
		var configs []*memberlist.Config
		for i := range byte(6) {
			addr := netip.AddrFrom4([4]byte{192, 0, 2, i + 1})
			if i%2 == 1 {
				addr = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: i + 1})
			}
			c := listConfig(f.port(netip.AddrPortFrom(addr, 6783)), i+1)
			configs = append(configs, c)
			list, err := memberlist.Create(c)
			if err != nil {
				t.Fatal(err)
			}
			lists = append(lists, list)
			if i > 0 {
				if _, err := list.Join([]string{lists[0].LocalNode().Address()}); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(time.Minute)
		exerciseMemberlists(t, f, lists, configs)
		if _, err := lists[0].Join([]string{"192.0.2.99:6783"}); err == nil {
			t.Error("joined a node that is not there")
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, err := range f.refused {
			t.Error(err)
		}
		for k := kindPing; k <= kindError; k++ {
			packet, stream := k != kindPushPull && k != kindCompressed && k != kindEncrypted && k != kindError, k == kindPushPull || k == kindUser
			if packet && f.packets[k] == 0 || stream && f.streams[k] == 0 {
				t.Errorf("the memberlists sent no message of kind %d: packets %v, streams %v", k, f.packets, f.streams)
			}
		}
		if f.streams[kindPing] == 0 || f.streams[kindAck] == 0 {
			t.Errorf("no ping over a stream: %v", f.streams)
		}
	})
}

// exerciseMemberlists makes memberlists send messages of all kinds.
func exerciseMemberlists(t *testing.T, f *fabric, lists []*memberlist.Memberlist, configs []*memberlist.Config) {
	t.Helper()
	delegate := configs[1].Delegate.(*chatter)
	delegate.mu.Lock()
	delegate.meta, delegate.cast = make([]byte, 400), [][]byte{{byte(kindUser), 9}, append([]byte{byte(kindUser)}, make([]byte, 500)...)}
	delegate.mu.Unlock()
	to := lists[0].LocalNode()
	if err := errors.Join(lists[1].UpdateNode(time.Second), lists[1].SendReliable(to, make([]byte, 5000)),
		lists[1].SendBestEffort(to, []byte("x"))); err != nil {
		t.Error(err)
	}
	deaf := f.nodes[lists[2].LocalNode().Address()]
	deaf.setDeaf(true)
	time.Sleep(30 * time.Second) // others answer its pings over streams and relay them
	deaf.setDeaf(false)
	_ = lists[3].Shutdown() // it dies: suspect, then dead
	f.nodes[lists[3].LocalNode().Address()].setDeaf(true)
	if err := lists[4].Leave(time.Second); err != nil {
		t.Error(err)
	}
	time.Sleep(2 * time.Minute)
}
