package e2e

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/peer"
	"weft/internal/statuspage"
)

// pageState is a state of a network that is hard to bring about for real. It implements statuspage.Source.
type pageState struct{ snapshot }

type snapshot = statuspage.Snapshot

// Snapshot implements statuspage.Source. The counters grow, so that the page has rates.
func (s *pageState) Snapshot() snapshot {
	for i := range s.Peers {
		if p := &s.Peers[i]; p.Link != api.LinkNone {
			p.TxBytes += 1_400_000 * uint64(i%5)
			p.RxBytes += 31_000_000 * uint64(i%3)
		}
	}
	return s.snapshot
}

func stateID(n int) peer.ID {
	return peer.ID{0x86, 0x9a, byte(n * 37), 0xfb, byte(n * 71), 0xd5, byte(n), 0x30}
}

// newPageState returns a healthy network of n nodes, the first of which is shown.
func newPageState(n int) *pageState {
	now := time.Now()
	s := &pageState{}
	cidr := netip.MustParsePrefix("10.32.0.0/12")
	s.Status = api.Status{
		Version: "devel", ID: stateID(0), Name: "host1", Ready: true, Range: []netip.Prefix{cidr}, Bridge: "weave", Tap: "weft0",
		MTU: 1422, Advertise: netip.MustParseAddrPort("192.0.2.11:6783"), Encrypted: true, Secrets: 1, Network: api.NetworkSecret,
		Datapath: api.DatapathMixed, Offload: []string{"tso4", "tso6", "uso", "gso", "gro"}, Queues: 2, FDB: 14,
		Targets: []api.Target{{Addr: "host2:6783"}}, Exposed: []netip.Prefix{netip.MustParsePrefix("10.32.0.1/12")},
		Drops: map[string]uint64{"frame_exceeds_path_mtu": 3}, Guard: api.GuardStatus{Bound: 3}, Since: now.Add(-157 * time.Minute),
	}
	r := statuspage.Range{CIDR: cidr}
	for i := range n {
		p := api.Peer{
			ID: stateID(i), Name: fmt.Sprintf("host%d", i+1), State: api.PeerAlive, Self: i == 0, Link: api.LinkDirect, MTU: 1422,
			Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(11 + i)}), 6784), Encrypted: true,
			RTT: 0.18 + 0.11*float64(i%7), Datapath: api.DatapathUserspace, Cipher: api.CipherAES256GCM,
			TxBytes: 502_443_000 * uint64(i), RxBytes: 174_763_000 * uint64(i), Drops: map[string]uint64{},
		}
		if i%3 == 1 {
			p.Datapath, p.Carrier, p.Cipher, p.Encrypted = api.DatapathKernel, api.CarrierVXLAN, "", false
		}
		if i == 0 {
			p.Link, p.Datapath, p.Cipher, p.RTT = api.LinkNone, "", "", 0
		}
		s.Peers = append(s.Peers, p)
		size := uint64(1<<20) / uint64(n)
		r.Owners = append(r.Owners, api.IPAMOwner{ID: p.ID, Name: p.Name, Addresses: size, Free: size - uint64(2+i%3), Reachable: true})
		r.Parts = append(r.Parts, statuspage.Part{Owner: p.ID, Start: float64(i) / float64(n), Length: 1 / float64(n)})
	}
	s.Peers = append(s.Peers[1:], s.Peers[0]) // as "weft peers" sorts them
	s.Ranges = []statuspage.Range{r}
	s.Leases = []api.Lease{
		{Owner: "weft:expose", IP: netip.MustParsePrefix("10.32.0.1/12"), Since: now.Add(-156 * time.Minute)},
		{Owner: "netns:/run/netns/web/eth0", IP: netip.MustParsePrefix("10.32.0.2/12"), Since: now.Add(-140 * time.Minute)},
		{Owner: "cni/weft/3f2a1bd09c77e1fdd33a/eth0", IP: netip.MustParsePrefix("10.32.0.7/12"), Since: now.Add(-4 * time.Minute)},
	}
	s.Names = []api.Name{
		{Name: "web", IP: netip.MustParseAddr("10.32.0.2"), Node: stateID(0), Answered: true},
		{Name: "shop.web", IP: netip.MustParseAddr("10.32.0.2"), Node: stateID(0), Answered: true},
		{Name: "printer", IP: netip.MustParseAddr("10.32.9.9"), Node: stateID(0), Answered: true},
		{Name: "db", IP: netip.MustParseAddr("10.37.85.86"), Node: stateID(1), Answered: true},
	}
	return s
}

// newTroubledState returns a network with a dead node, a node that is relayed, one that is not reached, rows of nodes that
// have left, and conditions of all severities.
func newTroubledState() *pageState {
	s := newPageState(6)
	now := time.Now()
	s.Status.Ready, s.Missing = false, "waiting for bootstrap nodes to divide 10.32.0.0/12: 1 of 2 have met"
	s.Waiting = "bootstrap nodes to divide 10.32.0.0/12: 1 of 2 have met"
	dead := s.Peers[4]
	dead.State, dead.Link, dead.Datapath, dead.Cipher, dead.RTT = api.PeerDead, api.LinkNone, "", "", 0
	s.Peers[2].Link, s.Peers[2].Via, s.Peers[2].Datapath = api.LinkRelay, stateID(1), api.DatapathUserspace
	s.Peers[2].MTU = 1376
	s.Peers[1].Link, s.Peers[1].Cipher = api.LinkNone, ""
	s.Peers[1].Drops = map[string]uint64{"no_route": 1204, "no_session": 31}
	s.Peers = append([]api.Peer{dead}, append(s.Peers[:4:4], s.Peers[5:]...)...)
	for i := range 2 {
		left := dead
		left.ID, left.Name, left.State = stateID(90+i), "host3", api.PeerLeft
		s.Peers = append(s.Peers, left)
	}
	s.Broken = [][2]peer.ID{{stateID(0), stateID(3)}, {stateID(2), stateID(3)}}
	s.Status.Targets = append(s.Status.Targets, api.Target{Addr: "192.0.2.99:6783", Error: "connection refused"})
	s.Status.Drops = map[string]uint64{"frame_exceeds_path_mtu": 10213, "replayed": 2, "no_route": 1204}
	s.Status.Exposed = nil
	r := &s.Ranges[0]
	r.Owners[5].Reachable = false
	r.Parts[1].Length /= 2
	r.Parts = append(r.Parts, statuspage.Part{Owner: stateID(4), Start: r.Parts[1].Start + r.Parts[1].Length, Length: r.Parts[1].Length})
	s.Status.Conditions = []api.Condition{
		{Code: "peer_unreachable", Severity: api.SeverityError, Title: "A live peer cannot be reached", Since: now.Add(-90 * time.Second),
			Text:   "Node host3 (869a6ffb6dd50230 at 192.0.2.13) is alive, and no frame gets there.",
			Remedy: "Open UDP port 6784 in both directions."},
		{Code: "peer_dead", Severity: api.SeverityWarning, Title: "A node is dead", Since: now.Add(-3 * time.Hour),
			Text:   "Node host6 (" + dead.ID.String() + " at 192.0.2.16) is dead; it owns 174 762 addresses.",
			Remedy: "Start it again, or if it will not return run \"weft reclaim " + dead.ID.String() + "\"."},
		{Code: "target_unreachable", Severity: api.SeverityWarning, Title: "A target does not answer", Since: now.Add(-26 * time.Hour),
			Text:   "Target 192.0.2.99:6783 does not answer: connection refused.",
			Remedy: "Check that weft runs there and that TCP and UDP port 6783 and UDP port 6784 are open, or run \"weft forget 192.0.2.99:6783\"."},
		{Code: "range_full", Severity: api.SeverityInfo, Title: "An address range is nearly full", Since: now.Add(-70 * time.Hour),
			Text: "The range 10.32.0.0/12 has few free addresses.",
			Remedy: "Release unused addresses (\"weft ip list\" shows them on each node), reclaim nodes that will not return, or plan a larger " +
				"range."},
	}
	return s
}

// newLargeState returns a network of 60 nodes, two of them dead.
func newLargeState() *pageState {
	s := newPageState(60)
	for _, i := range []int{17, 31} {
		p := &s.Peers[i]
		p.State, p.Link, p.Datapath, p.Cipher, p.RTT = api.PeerDead, api.LinkNone, "", "", 0
	}
	s.Peers[2].Name = "ip-10-0-12-34.eu-central-1.compute.internal"
	s.Peers[3].Addr = netip.MustParseAddrPort("[2001:db8:1234:5678:9abc:def0:1234:5678]:6784")
	for _, i := range []int{5, 6, 20} {
		p := &s.Peers[i]
		p.Link, p.Via, p.Datapath = api.LinkRelay, stateID(1), api.DatapathUserspace
	}
	return s
}

// servePage serves the status page of a state in this process, and returns its URL.
func servePage(t *testing.T, s *pageState) string {
	t.Helper()
	page, err := statuspage.New(statuspage.Config{Source: s, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	page.Register(mux)
	server := httptest.NewServer(mux)
	var done sync.WaitGroup
	done.Go(func() { _ = page.Run(t.Context()) })
	t.Cleanup(func() {
		done.Wait()
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}
