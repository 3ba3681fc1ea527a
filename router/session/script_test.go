package session

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"

	"weft/internal/ratelimit"
	"weft/internal/simnet"
	"weft/router/underlay"
	"weft/router/wire"
)

// TestScripts runs the scripts in testdata/scripts on a simulated network: nodes that have only sessions send numbered
// frames to each other. Every script has the same outcome each time (go test -rewrite writes it anew). In every script
// no frame may arrive twice, and no counter may be used twice in a session.
//
//	nodes NAME... [secrets=1,2] [cipher=C] [trust]    nodes that are peers of each other
//	link [loss=P] [latency=D] [jitter=D] [duplicate=P] [reorder=P]
//	cut A B, heal                  two nodes do not reach each other; all nodes do again
//	send FROM TO COUNT [every=D]   sends frames while the script goes on
//	run D                          lets time pass
//	restart NAME                   a node loses all but its key
//	clock NAME D                   adds D to a node's clock
//	secrets NAME 2,1               replaces a node's secrets
//	move NAME                      changes a node's address without an update of its peers
//	busy NAME                      a node accepts only initiations with a cookie
//	show                           the frames that arrived, the sessions, the messages sent and the errors
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		synctest.Test(t, func(t *testing.T) {
			w := &world{t: t, network: simnet.New(1), byName: map[string]*simNode{}, used: map[string]bool{}, count: map[wire.Type]int{}}
			for range 16 {
				w.batch = append(w.batch, underlay.Datagram{Buf: make([]byte, 2048)})
			}
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
				w.t = t
				return w.command(d)
			})
		})
	})
}

// world is a network of nodes, driven by one goroutine.
type world struct {
	t       *testing.T
	network *simnet.Network
	nodes   []*simNode
	byName  map[string]*simNode
	batch   []underlay.Datagram
	streams []*stream
	used    map[string]bool   // session and counter of all sent datagrams
	count   map[wire.Type]int // of messages and keepalives, since the last show
	errs    map[string]int    // of received datagrams, since the last show
}

// simNode is a node with the datapath state that belongs to it.
type simNode struct {
	*Node
	name   string
	number int
	cfg    Config
	peer   Peer
	conn   *simnet.Conn
	skew   time.Duration
	egress map[string]*simEgress
}

// simEgress is the send state of one peer.
type simEgress struct {
	session *Session
	addr    netip.AddrPort
	staged  []string
}

// stream is frames from one node to another.
type stream struct {
	from, to         *simNode
	every            time.Duration
	next             time.Time
	left, sent       int
	arrived, swapped int
	last             int
	seen             map[int]bool
}

func (w *world) command(d *datadriven.TestData) string {
	switch d.Cmd {
	case "nodes":
		w.addNodes(d)
	case "link":
		w.network.SetDefault(linkOf(w.t, d))
	case "cut":
		var sides [2][]netip.Addr
		for i := range sides {
			sides[i] = []netip.Addr{w.node(d, i).conn.LocalAddr().Addr()}
		}
		w.network.Partition(sides[0], sides[1])
	case "heal":
		w.network.Heal()
	case "send":
		w.streams = append(w.streams, &stream{
			from: w.node(d, 0), to: w.node(d, 1), left: number(w.t, d.CmdArgs[2].Key), every: option(w.t, d, "every", time.Millisecond),
			next: time.Now(), seen: map[int]bool{}, last: -1,
		})
	case "run":
		for end := time.Now().Add(duration(w.t, d.CmdArgs[0].Key)); time.Now().Before(end); {
			time.Sleep(min(w.advance(), time.Until(end))) // of the bubble
		}
	case "restart":
		w.restart(w.node(d, 0))
	case "clock":
		w.node(d, 0).skew += duration(w.t, d.CmdArgs[1].Key)
	case "secrets":
		n := w.node(d, 0)
		n.cfg.Secrets = secretsOf(w.t, d.CmdArgs[1].Key)
		n.SetSecrets(n.cfg.Secrets, n.now())
		w.setPeers()
	case "move":
		n := w.node(d, 0)
		n.number += 50
		w.listen(n)
	case "busy":
		n := w.node(d, 0)
		n.limiter.free = ratelimit.New(0, 0)
	case "show":
		return w.show()
	default:
		d.Fatalf(w.t, "unknown command %s", d.Cmd)
	}
	return ""
}

func (w *world) addNodes(d *datadriven.TestData) {
	cfg := Config{Offer: NewOffer(0, true)}
	var names []string
	for _, arg := range d.CmdArgs {
		switch arg.Key {
		case "secrets":
			cfg.Secrets = secretsOf(w.t, strings.Join(arg.Vals, ","))
		case "trust":
			cfg.Trusted = TrustAll()
		case "cipher":
			for _, c := range []Cipher{AES256GCM, ChaCha20Poly1305} {
				if c.String() == arg.Vals[0] {
					cfg.Offer = NewOffer(c, true)
				}
			}
		default:
			names = append(names, arg.Key)
		}
	}
	for _, name := range names {
		n := &simNode{name: name, number: len(w.nodes), cfg: cfg}
		n.cfg.Private, n.peer = keyOf(w.t, n.number)
		n.cfg.Cluster = "test"
		w.nodes, w.byName[name] = append(w.nodes, n), n
		w.listen(n)
		n.peer.Addr = n.conn.LocalAddr()
		w.restart(n)
	}
	w.setPeers()
}

// listen gives n a socket at an address of its own.
func (w *world) listen(n *simNode) {
	if n.conn != nil {
		n.conn.Close()
	}
	conn, err := w.network.Listen(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n.number + 1)}), 6784))
	if err != nil {
		w.t.Fatal(err)
	}
	n.conn = conn
}

func (w *world) restart(n *simNode) {
	n.cfg.Random = newReader(uint64(n.number) + uint64(time.Now().UnixNano()))
	node, err := NewNode(n.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	n.Node, n.egress = node, map[string]*simEgress{}
	w.setPeers()
}

// setPeers sets the peers of all nodes, with the secrets that each accepts.
func (w *world) setPeers() {
	var peers []Peer
	for _, n := range w.nodes {
		n.peer.Accepts = nil
		for _, s := range n.cfg.Secrets {
			n.peer.Accepts = append(n.peer.Accepts, s.Fingerprint)
		}
		peers = append(peers, n.peer)
	}
	for _, n := range w.nodes {
		n.SetPeers(peers, n.now())
		for _, p := range w.nodes {
			if n.egress[p.name] == nil {
				n.egress[p.name] = &simEgress{addr: p.peer.Addr}
			}
		}
	}
}

func (n *simNode) now() time.Time { return time.Now().Add(n.skew) }

// advance does the work that is due at all nodes, and returns how long nothing else is due.
func (w *world) advance() time.Duration {
	next := time.Now().Add(time.Second)
	for i, s := range w.streams {
		for ; s.left > 0 && !time.Now().Before(s.next); s.next = s.next.Add(s.every) {
			w.frame(s.from, s.to, fmt.Sprintf("%s %s %d %d", s.from.name, s.to.name, i, s.sent))
			s.sent++
			s.left--
		}
		if s.left > 0 {
			next = earliest(next, s.next)
		}
	}
	for _, n := range w.nodes {
		if at := n.Deadline(); !at.IsZero() && !n.now().Before(at) {
			n.Advance(n.now())
		}
		w.drain(n)
	}
	for _, n := range w.nodes {
		if wait := w.poll(n); wait > 0 {
			next = earliest(next, time.Now().Add(wait))
		}
		if at := n.Deadline(); !at.IsZero() {
			next = earliest(next, at.Add(-n.skew))
		}
	}
	return max(time.Until(next), time.Microsecond)
}

// poll passes the arrived datagrams to a node, and returns the time until the next arrives, 0 for never.
func (w *world) poll(n *simNode) time.Duration {
	for {
		got, wait := n.conn.Poll(w.batch)
		for _, d := range w.batch[:got] {
			w.receive(n, d)
		}
		w.drain(n)
		if got == 0 {
			return wait
		}
	}
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// frame sends a frame, or stages it until there is a session.
func (w *world) frame(from, to *simNode, body string) {
	l := from.egress[to.name]
	if l.session == nil {
		l.staged = append(l.staged, body)
		from.RequestSession(to.peer.ID, from.now())
		w.drain(from)
		return
	}
	l.session.Use()
	content := append(make([]byte, wire.MetaLen), body...)
	kind := wire.TypeFrame
	counter, ok := l.session.Reserve(1)
	if !ok {
		return
	}
	if l.session.Plain() {
		kind = wire.TypePlain
		header := make([]byte, wire.HeaderLen)
		l.session.PutHeader(header, kind, counter)
		w.transmit(from, l.addr, append(header, content...))
		return
	}
	w.transmit(from, l.addr, l.session.Seal(nil, kind, counter, content))
}

// transmit sends a datagram, and checks that no counter is used a second time.
func (w *world) transmit(from *simNode, to netip.AddrPort, datagram []byte) {
	h, _, err := wire.Parse(datagram)
	if err != nil {
		w.t.Fatal(err)
	}
	if !h.Type.IsHandshake() {
		key := fmt.Sprintf("%s %d %d", from.name, h.Session, h.Counter)
		if w.used[key] {
			w.t.Fatalf("a counter of %s is used a second time", from.name)
		}
		w.used[key] = true
	}
	if h.Type != wire.TypeFrame && h.Type != wire.TypePlain {
		w.count[h.Type]++
	}
	if _, err := from.conn.WriteBatch([]underlay.Datagram{{Addr: to, Buf: datagram}}); err != nil {
		w.t.Fatal(err)
	}
}

// receive handles a datagram as a datapath does.
func (w *world) receive(n *simNode, d underlay.Datagram) {
	h, rest, err := wire.Parse(d.Buf)
	if err != nil {
		w.t.Fatal(err)
	}
	s := n.Lookup(h.Session)
	body := rest
	if h.Type == wire.TypeFrame && s != nil {
		if at := n.egress[w.nameOf(s)]; at.addr != d.Addr {
			at.addr = d.Addr
		}
	}
	sealed := d.Buf
	if err = receive(n.Node, sealed, d.Addr, n.now()); err != nil {
		w.note(err)
		return
	}
	if s == nil || h.Type != wire.TypeFrame && h.Type != wire.TypePlain {
		return
	}
	if h.Type == wire.TypeFrame {
		body = sealed[wire.HeaderLen : len(sealed)-wire.TagLen] // opened in place
	}
	s.Use()
	w.arrive(n, string(body[wire.MetaLen:]))
}

func (w *world) note(err error) {
	if w.errs == nil {
		w.errs = map[string]int{}
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	w.errs[text]++
}

func (w *world) nameOf(s *Session) string {
	for _, n := range w.nodes {
		if n.peer.ID == s.Peer() {
			return n.name
		}
	}
	return ""
}

// arrive records a frame.
func (w *world) arrive(at *simNode, body string) {
	var from, to string
	var number, index int
	if _, err := fmt.Sscanf(body, "%s %s %d %d", &from, &to, &index, &number); err != nil || to != at.name {
		w.t.Fatalf("%s got %q", at.name, body)
	}
	s := w.streams[index]
	if s.seen[number] {
		w.t.Fatalf("%s got %q a second time", at.name, body)
	}
	s.seen[number] = true
	s.arrived++
	if number < s.last {
		s.swapped++
	}
	s.last = max(s.last, number)
}

// drain sends a node's messages, applies its session changes, and sends the staged frames.
func (w *world) drain(n *simNode) {
	messages, changes := n.Drain()
	for _, m := range messages {
		w.transmit(n, m.To, m.Datagram)
	}
	for _, c := range changes {
		for _, p := range w.nodes {
			if p.peer.ID != c.Peer {
				continue
			}
			l := n.egress[p.name]
			l.session, l.addr = c.Session, c.Addr
			staged := l.staged
			l.staged = nil
			for _, body := range staged {
				w.frame(n, p, body)
			}
		}
	}
}

// show describes what happened since the last show, and the sessions.
func (w *world) show() string {
	var b strings.Builder
	for _, s := range w.streams {
		fmt.Fprintf(&b, "%s to %s: %d sent, %d arrived, %d out of order\n", s.from.name, s.to.name, s.sent, s.arrived, s.swapped)
	}
	for i, n := range w.nodes {
		for _, p := range w.nodes[i+1:] {
			fmt.Fprintf(&b, "%s\n", between(n, p))
		}
	}
	for kind, name := range []string{
		wire.TypeKeepalive: "keepalives", wire.TypeInitiation: "initiations", wire.TypeResponse: "responses",
		wire.TypeCookie: "cookies", wire.TypeUnknown: "unknown",
	} {
		if c := w.count[wire.Type(kind)]; c > 0 {
			fmt.Fprintf(&b, "%s: %d\n", name, c)
		}
	}
	var errs []string
	for text, c := range w.errs {
		errs = append(errs, fmt.Sprintf("%s: %d\n", text, c))
	}
	slices.Sort(errs)
	w.count, w.errs = map[wire.Type]int{}, nil
	return b.String() + strings.Join(errs, "")
}

// between describes the sessions of two nodes, which should be the two ends of one.
func between(a, b *simNode) string {
	of := func(n, p *simNode) *Session { return n.egress[p.name].session }
	s, t := of(a, b), of(b, a)
	switch {
	case s == nil && t == nil:
		return fmt.Sprintf("%s-%s: no session", a.name, b.name)
	case s == nil || t == nil:
		return fmt.Sprintf("%s-%s: one end has a session", a.name, b.name)
	case s.remote != t.local || s.local != t.remote:
		return fmt.Sprintf("%s-%s: the ends send by two sessions", a.name, b.name)
	}
	by := a
	if t.initiator {
		by = b
	}
	plain := ""
	if s.Plain() {
		plain = ", plain"
	}
	return fmt.Sprintf("%s-%s: one session, begun by %s, secret %d, %s%s", a.name, b.name, by.name, s.secret, s.Cipher(), plain)
}

func (w *world) node(d *datadriven.TestData, i int) *simNode {
	if i >= len(d.CmdArgs) || w.byName[d.CmdArgs[i].Key] == nil {
		d.Fatalf(w.t, "argument %d is not a node", i)
	}
	return w.byName[d.CmdArgs[i].Key]
}

func secretsOf(t *testing.T, list string) (secrets []Secret) {
	for s := range strings.SplitSeq(list, ",") {
		secrets = append(secrets, secretOf(number(t, s)))
	}
	return secrets
}

func linkOf(t *testing.T, d *datadriven.TestData) simnet.Link {
	chance := func(name string) (p float64) {
		if d.HasArg(name) {
			var text string
			d.ScanArgs(t, name, &text)
			var err error
			if p, err = strconv.ParseFloat(text, 64); err != nil {
				d.Fatalf(t, "%s: %v", name, err)
			}
		}
		return p
	}
	return simnet.Link{
		Loss: chance("loss"), Duplicate: chance("duplicate"), Reorder: chance("reorder"), Delay: 7 * time.Millisecond,
		Latency: option(t, d, "latency", time.Millisecond), Jitter: option(t, d, "jitter", 0),
	}
}

func option(t *testing.T, d *datadriven.TestData, name string, otherwise time.Duration) time.Duration {
	if !d.HasArg(name) {
		return otherwise
	}
	var text string
	d.ScanArgs(t, name, &text)
	return duration(t, text)
}

func duration(t *testing.T, s string) time.Duration {
	v, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func number(t *testing.T, s string) int {
	v, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
