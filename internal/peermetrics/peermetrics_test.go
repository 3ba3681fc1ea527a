package peermetrics_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"weft/internal/api"
	"weft/internal/peer"
	"weft/internal/peermetrics"
	"weft/router"
	"weft/router/carrier"
	"weft/router/drop"
	"weft/router/session"
)

// network is a number of peers, of which every second one is in session.
type network int

func (n network) Live() (list []peermetrics.Peer) {
	for i := range int(n) {
		link := api.LinkDirect
		if i%10 == 9 {
			link = api.LinkRelay
		}
		list = append(list, peermetrics.Peer{
			ID: peer.ID{byte(i >> 8), byte(i)}, Name: "n", Addr: netip.MustParseAddrPort("192.0.2.1:6784"), Link: link, Kernel: i%2 == 0,
		})
	}
	return list
}

func (n network) Stats() (s router.Stats, ok bool) {
	s.Total = router.PeerTotals{TxFrames: 7, TxBytes: 700, RxFrames: 8, RxBytes: 800, Foreign: 2, Sessions: session.Counts{
		Initiations: 5, Sessions: 4, Rekeys: 3,
	}}
	for i := range int(n) {
		p := router.PeerStats{ID: peer.ID{byte(i >> 8), byte(i)}, Drops: map[drop.Reason]uint64{drop.NoSession: 1}}
		if i%2 == 0 {
			p.Session, p.RTT = time.Second, 3*time.Millisecond
		}
		s.Peers = append(s.Peers, p)
	}
	return s, true
}

func (n network) KernelCounts() map[peer.ID]carrier.Counts {
	return map[peer.ID]carrier.Counts{{0, 1}: {TxFrames: 1}}
}

// TestBound: up to the limit each peer has series of its own; beyond it their number does not depend on that of the peers, and the sums are
// there in both cases.
func TestBound(t *testing.T) {
	sums := func(live, relayed, kernel, inSession string, each string) string {
		return `
# HELP weft_bytes_total Bytes of these frames, without the headers on the wire.
# TYPE weft_bytes_total counter
weft_bytes_total{direction="receive"} 800
weft_bytes_total{direction="transmit"} 700
# HELP weft_peers Live peers, by the link to them.
# TYPE weft_peers gauge
weft_peers{link="direct"} ` + live + `
weft_peers{link="none"} 0
weft_peers{link="relay"} ` + relayed + `
# HELP weft_peers_have_metrics 1 if each live peer has metrics of its own, 0 if there are more than --peer-metrics.
# TYPE weft_peers_have_metrics gauge
weft_peers_have_metrics ` + each + `
# HELP weft_peers_kernel Live peers of which the kernel carries the frames.
# TYPE weft_peers_kernel gauge
weft_peers_kernel ` + kernel + `
# HELP weft_peers_session Peers with which there is a session.
# TYPE weft_peers_session gauge
weft_peers_session ` + inSession + `
# HELP weft_sessions_total Sessions that were made, by handshakes that either node began.
# TYPE weft_sessions_total counter
weft_sessions_total 4
`
	}
	names := []string{"weft_bytes_total", "weft_peers", "weft_peers_have_metrics", "weft_peers_kernel", "weft_peers_session",
		"weft_sessions_total"}
	count := map[int]int{}
	for peers, want := range map[int]string{
		10: sums("9", "1", "5", "5", "1"), 11: sums("10", "1", "6", "6", "0"), 1000: sums("900", "100", "500", "500", "0"),
	} {
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(peermetrics.New(network(peers), 10))
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), names...); err != nil {
			t.Errorf("%d peers: %v", peers, err)
		}
		if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) != 0 {
			t.Errorf("%d peers: lint: %v, %v", peers, problems, err)
		}
		n, err := testutil.GatherAndCount(registry)
		if err != nil {
			t.Fatal(err)
		}
		count[peers] = n
	}
	if count[11] != count[1000] || count[10] < 10*len(names) {
		t.Errorf("series by number of peers: %v", count)
	}
}
