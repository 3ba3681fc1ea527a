package main

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/api"
	"weft/internal/peer"
	"weft/internal/printable"
)

var updateGolden = flag.Bool("golden", false, "write testdata/*.golden again")

// checkGolden compares text with a file in testdata. Escape sequences are readable in it.
func checkGolden(t *testing.T, name, text string) {
	t.Helper()
	text = strings.ReplaceAll(text, "\x1b", "ESC")
	file := filepath.Join("testdata", name+".golden")
	if *updateGolden {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s: run with -golden to write it again (-want +got)\n%s", file, diff)
	}
}

// topOfPeers returns a document with n peers and 2n flows.
func topOfPeers(n int) api.Top {
	top := api.Top{
		At: time.Date(2026, 11, 28, 22, 17, 58, 0, time.Local), Interval: 2, ID: peer.ID{9}, Name: "host1", Drops: map[string]float64{},
	}
	for i := range n {
		p := api.TopPeer{
			ID: peer.ID{byte(i + 1)}, Name: fmt.Sprintf("host%d", i+2), State: api.PeerAlive, Link: api.LinkDirect, Carrier: api.CarrierUserspace,
			RTT: 0.31 * float64(i+1),
			TopRates: api.TopRates{
				TxBits: float64(i) * 1.234e6, RxBits: float64(i) * 5.6e8, TxPackets: float64(i) * 90, RxPackets: float64(i) * 4.7e4,
			},
		}
		switch i {
		case 1:
			p.Carrier, p.Estimated = api.CarrierVXLAN, true
		case 2:
			p.Link, p.Drops = api.LinkRelay, map[string]float64{"oversize": 2.5, "replayed": 0.01}
			top.Drops = p.Drops
		case 3:
			p = api.TopPeer{ID: p.ID, Name: p.Name, State: api.PeerDead, Link: api.LinkNone}
		}
		top.Peers = append(top.Peers, p)
		top.Flows = append(top.Flows, api.TopFlow{
			Source: netip.AddrFrom4([4]byte{10, 40, 0, byte(i)}), Destination: netip.MustParseAddr("10.32.0.1"), Protocol: "tcp",
			SourcePort: uint16(40000 + i), DestinationPort: 5201, Peer: p.ID, PeerName: p.Name, Sent: i%2 == 0, Path: api.DatapathKernel,
			Bits: 1e9 / float64(i+1), Packets: 8e4 / float64(i+1),
		}, api.TopFlow{Protocol: "arp", Path: api.DatapathUserspace, Bits: 480, Packets: 1})
	}
	return top
}

func TestTopView(t *testing.T) {
	for name, c := range map[string]struct {
		view  topView
		peers int
	}{
		"top-plain": {topView{sort: "rate"}, 4},
		"top-live":  {topView{sort: "rate", live: true, height: 24, display: display{width: 100, color: true}}, 4},
		"top-small": {topView{sort: "name", live: true, height: 12, display: display{width: 60}}, 20},
		"top-drops": {topView{sort: "drops", height: 40, display: display{width: 120}}, 4},
		"top-alone": {topView{sort: "rtt", height: 24, display: display{width: 80}}, 0},
	} {
		lines := c.view.lines(topOfPeers(c.peers))
		if c.view.height > 0 && len(lines) > c.view.height {
			t.Errorf("%s: %d lines", name, len(lines))
		}
		checkGolden(t, name, strings.Join(lines, "\n")+"\n")
	}
}

// TestTopViewFits: a screen of any size gets no more lines and characters than it has, and no bytes of other nodes that act on it.
func TestTopViewFits(t *testing.T) {
	top := topOfPeers(30)
	for i := range top.Peers {
		top.Peers[i].Name = "\x1b[2J\u202ehost\n"
		top.Flows[i].PeerName = top.Peers[i].Name
	}
	for height := 2; height < 60; height++ {
		for width := 1; width < 150; width += 7 {
			lines := topView{sort: "rtt", live: true, height: height, display: display{width: width}}.lines(top)
			if len(lines) > height {
				t.Fatalf("%d lines of %d", len(lines), height)
			}
			for _, line := range lines {
				if len([]rune(line)) > width || printable.Text(line) != line {
					t.Fatalf("%q does not fit %d columns", line, width)
				}
			}
		}
	}
}

func TestScaled(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.01: "<0.1", 0.25: "0.2", 1: "1", 9.99: "10", 12.34: "12.3", 999.4: "999", 999.6: "1.00 k", 1234: "1.23 k", 99949: "99.9 k",
		1e6: "1.00 M", 9.5e9: "9.50 G", 1e21: "1000 E",
	} {
		if got := scaled(v); got != want {
			t.Errorf("scaled(%v) = %q, want %q", v, got, want)
		}
	}
}
