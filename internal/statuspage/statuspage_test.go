package statuspage

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/html"

	"weft/internal/api"
	"weft/internal/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func id(n int) peer.ID { return peer.ID{byte(n >> 8), byte(n + 1)} }

// snapshots is a Source of one function.
type snapshots func() Snapshot

func (f snapshots) Snapshot() Snapshot { return f() }

// network returns a snapshot of n nodes. The first one is this node.
func network(n int) Snapshot {
	s := Snapshot{Status: api.Status{ID: id(0), Name: "n0", Ready: true, Warnings: []string{}, Peers: map[api.PeerState]int{api.PeerAlive: n}}}
	r := Range{CIDR: netip.MustParsePrefix("10.32.0.0/12")}
	for i := range n {
		s.Peers = append(s.Peers, api.Peer{
			ID: id(i), Name: fmt.Sprintf("n%d", i), State: api.PeerAlive, Self: i == 0,
			Link: api.LinkDirect, Datapath: api.DatapathUserspace, RTT: 0.5,
			Addr: netip.MustParseAddrPort("192.0.2.1:6784"),
		})
		r.Owners = append(r.Owners, api.IPAMOwner{ID: id(i), Name: fmt.Sprintf("n%d", i), Addresses: 100, Free: 50, Reachable: true})
		r.Parts = append(r.Parts, Part{Owner: id(i), Start: float64(i) / float64(n), Length: 1 / float64(n), Used: 0.5})
	}
	s.Ranges = []Range{r}
	return s
}

func newPage(t *testing.T, source snapshots) *Page {
	t.Helper()
	p, err := New(Config{Source: source, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestPageIsSafe: names that other nodes have chosen are shown as text, nothing is loaded from elsewhere, and the page
// contains no inline style or script, which its policy forbids.
func TestPageIsSafe(t *testing.T) {
	s := network(3)
	evil := `<script>alert("x")</script>`
	s.Status.Name, s.Peers[1].Name, s.Ranges[0].Owners[1].Name = evil, evil, evil
	s.Status.Version, s.Missing, s.Waiting = evil, evil, evil
	s.Status.Conditions = []api.Condition{{Title: evil, Text: evil, Remedy: evil + ` "weft ` + evil + `"`}}
	s.Status.Targets = []api.Target{{Addr: evil}}
	s.Names = []api.Name{{Name: evil, IP: netip.MustParseAddr("10.32.0.9"), Node: id(0)}}
	s.Leases = []api.Lease{{Owner: evil, IP: netip.MustParsePrefix("10.32.0.9/12")}}
	s.Peers[2].State, s.Peers[2].Link = api.PeerDead, api.LinkNone
	r, err := newPage(t, func() Snapshot { return s }).render()
	if err != nil {
		t.Fatal(err)
	}
	text := string(r.whole)
	if strings.Contains(text, evil) || strings.Contains(text, "ZgotmplZ") {
		t.Error("a name is not escaped, or was treated as code")
	}
	doc, err := html.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for n := range doc.Descendants() {
		for _, a := range n.Attr {
			if a.Key == "style" || strings.HasPrefix(a.Key, "on") {
				t.Errorf("<%s> has %s", n.Data, a.Key)
			}
			own := strings.HasPrefix(a.Val, "/") || strings.HasPrefix(a.Val, "#") || strings.HasPrefix(a.Val, "data:image/svg")
			if (a.Key == "src" || a.Key == "href") && !own {
				t.Errorf("<%s %s=%q> is elsewhere", n.Data, a.Key, a.Val)
			}
		}
		if (n.Data == "script" || n.Data == "style") && n.FirstChild != nil {
			t.Errorf("<%s> with content", n.Data)
		}
	}
	for _, want := range []string{"n0", "n2 is dead", "10.32.0.0/12", "0.50\u00a0ms", `scope="row"`, `lang="en"`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q on the page", want)
		}
	}
}

// TestPageIsBounded: of a large network a readable number of nodes is drawn, and requests at the same time share a page.
func TestPageIsBounded(t *testing.T) {
	var rendered atomic.Int32
	s := network(1000)
	p := newPage(t, func() Snapshot { rendered.Add(1); return s })
	now := time.Unix(1_800_000_000, 0)
	p.now = func() time.Time { return now }
	for range 100 {
		r, err := p.render()
		if err != nil {
			t.Fatal(err)
		}
		if len(r.whole) > 256<<10 {
			t.Fatalf("a page of %d bytes", len(r.whole))
		}
	}
	if n := rendered.Load(); n != 1 {
		t.Errorf("rendered %d times", n)
	}
	for i := range 3 * maxPods {
		ip := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 32, byte(i >> 8), byte(i)}), 12)
		s.Leases = append(s.Leases, api.Lease{Owner: fmt.Sprint("pod", i), IP: ip})
	}
	v := newView(s, nil, now)
	if len(v.Mesh.Nodes) != 2 || len(v.Mesh.Links) != 1 {
		t.Errorf("%d groups and %d links are drawn", len(v.Mesh.Nodes), len(v.Mesh.Links))
	}
	if len(v.Pods.Rows) != maxPods || v.Pods.More != 2*maxPods {
		t.Errorf("%d pods are shown, %d more", len(v.Pods.Rows), v.Pods.More)
	}
}

func TestRates(t *testing.T) {
	var r rates
	s := network(2)
	now := time.Unix(1_800_000_000, 0)
	if got := r.update(s, now); len(got) != 0 {
		t.Errorf("of the first snapshot: %v", got)
	}
	s.Peers[1].TxBytes, s.Peers[1].RxBytes = 2000, 1000
	if got := r.update(s, now.Add(2*time.Second))[id(1)]; got != (rate{1000, 500}) {
		t.Errorf("%v", got)
	}
	s.Peers[1].TxBytes = 0 // the peer has restarted
	if got, ok := r.update(s, now.Add(5*time.Second))[id(1)]; ok {
		t.Errorf("after a counter was reset: %v", got)
	}
}

// served runs a page behind a real server until the test ends. timeout bounds requests other than streams; 0 means no bound.
func served(t *testing.T, p *Page, timeout time.Duration) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	p.Register(mux)
	server := httptest.NewUnstartedServer(mux)
	server.Config.ReadTimeout, server.Config.WriteTimeout = timeout, timeout
	server.Start()
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { _ = p.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		done.Wait()
		server.CloseClientConnections()
		server.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return server
}

// stream opens a stream of events.
func stream(t *testing.T, url string) (code int, header http.Header, events *bufio.Scanner) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	events = bufio.NewScanner(resp.Body)
	events.Buffer(nil, 8<<20)
	return resp.StatusCode, resp.Header, events
}

// TestEvents: a stream begins with all sections and goes on with those that change; it ends with the node.
func TestEvents(t *testing.T) {
	var mu sync.Mutex
	s := network(2)
	const timeout = renderPause / 2 // the stream lasts longer than other requests may
	server := served(t, newPage(t, func() Snapshot {
		mu.Lock()
		defer mu.Unlock()
		return s
	}), timeout)
	_, _, lines := stream(t, server.URL)
	seen := map[string]bool{}
	for len(seen) < len(sectionIDs) && lines.Scan() {
		for _, section := range sectionIDs {
			if strings.HasPrefix(lines.Text(), `data: {"id":"`+section+`"`) {
				seen[section] = true
			}
		}
	}
	mu.Lock()
	s.Status.Conditions = []api.Condition{{Title: "Something is wrong"}}
	mu.Unlock()
	changed := false
	for !changed && lines.Scan() {
		if strings.HasPrefix(lines.Text(), `data: {"id":"time"`) { // changes every second
			continue
		}
		if changed = strings.HasPrefix(lines.Text(), "data: "); changed {
			if !strings.Contains(lines.Text(), `"warnings"`) || !strings.Contains(lines.Text(), "Something is wrong") {
				t.Errorf("not the section that has changed: %s", lines.Text())
			}
		}
	}
	if err := lines.Err(); err != nil || !changed {
		t.Errorf("changed: %v, %v", changed, err)
	}
}

// TestHead: a HEAD request for the stream is answered at once, and the connection can be used again.
func TestHead(t *testing.T) {
	p := newPage(t, func() Snapshot { return network(1) })
	server := served(t, p, 0)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(conn)
	for _, path := range []string{"/events", "/page.css"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := req.Write(conn); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(answers, req)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s, %v", path, resp.Status, err)
		}
	}
	if n := p.hub.count(); n != 0 {
		t.Errorf("%d streams", n)
	}
}

// TestManyStreams: maxStreams pages are updated, further ones get an answer to retry later, and all streams end with the
// page.
func TestManyStreams(t *testing.T) {
	p := newPage(t, func() Snapshot { return network(2) })
	server := served(t, p, 0)
	var refused int
	for range maxStreams + 20 {
		code, header, _ := stream(t, server.URL)
		if code == http.StatusServiceUnavailable && header.Get("Retry-After") != "" {
			refused++
		}
	}
	if refused != 20 {
		t.Errorf("%d refused, want 20", refused)
	}
	if n := p.hub.count(); n != maxStreams {
		t.Errorf("%d streams", n)
	}
}

// TestSlowReader: a reader that does not read delays no other one. When it reads again it gets the latest sections, not all
// versions of them.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		h := newHub(func() ([]section, error) {
			return []section{{"head", fmt.Sprint(n.Add(1))}, {"mesh", "same"}}, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { _ = h.run(ctx) })
		changed, ok := h.join()
		if !ok {
			t.Fatal("no stream")
		}
		<-changed.C()
		time.Sleep(renderPause / 2)
		all, sent := h.changedSince(0)
		time.Sleep(100 * renderPause)
		later, _ := h.changedSince(sent)
		if len(all) != 2 || len(later) != 1 || later[0].ID != "head" || len(changed.C()) != 1 {
			t.Errorf("at first %v, then %v, %d wake-ups", all, later, len(changed.C()))
		}
		h.leave(changed)
		before := n.Load()
		time.Sleep(100 * renderPause)
		if more := n.Load() - before; more > 1 {
			t.Errorf("%d renderings without a stream", more)
		}
		cancel()
		done.Wait()
		if _, ok := h.join(); ok {
			t.Error("a stream after run has ended")
		}
	})
}

// TestReaderThatStops: when a reader stops reading, its connection and stream end at the write deadline.
func TestReaderThatStops(t *testing.T) {
	big := network(1000)
	calls := 0
	p := newPage(t, func() Snapshot { calls++; big.Status.Name = fmt.Sprint(calls); return big })
	server := served(t, p, 0)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET /events HTTP/1.1\r\nHost: %s\r\n\r\n", server.Listener.Addr()); err != nil {
		t.Fatal(err)
	}
	_, _, other := stream(t, server.URL)
	for changes := 0; changes < 3 && other.Scan(); {
		if strings.Contains(other.Text(), `"id":"head"`) {
			changes++
		}
	}
	if err := other.Err(); err != nil {
		t.Error(err)
	}
}
