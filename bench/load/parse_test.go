package load

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/bench/sample"
)

// The files are output of iperf3 3.12. The expected sums were computed by hand.
func TestParseIperf(t *testing.T) {
	for _, c := range []struct {
		file, wantErr string
		want          received
	}{
		{"iperf3-two-streams.json", "", received{bitsPerSecond: 25162090677.272945, retransmits: 1, bytes: 2566389760 + 3135242240}},
		{"iperf3-reverse.json", "", received{bitsPerSecond: 30762258685.552113, bytes: 2258370560 + 3845259264}},
		{"iperf3-refused.json", "unable to connect", received{}},
	} {
		text, err := os.ReadFile(filepath.Join("testdata", c.file))
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseIperf(text)
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.file, got, c.want)
		}
		if (err == nil) != (c.wantErr == "") || err != nil && !strings.Contains(err.Error(), c.wantErr) {
			t.Errorf("%s: error %v, want %q", c.file, err, c.wantErr)
		}
	}
	for _, bad := range []string{"", "{", "{}", `{"end":{}}`} {
		if _, err := parseIperf([]byte(bad)); err == nil {
			t.Errorf("parseIperf(%q) accepted it", bad)
		}
	}
}

func TestParsePing(t *testing.T) {
	got, err := parsePing([]byte(`PING 10.99.0.1 (10.99.0.1) 56(84) bytes of data.
64 bytes from 10.99.0.1: icmp_seq=1 ttl=64 time=0.250 ms
64 bytes from 10.99.0.1: icmp_seq=2 ttl=64 time=12 ms
From 10.99.0.2 icmp_seq=3 Destination Host Unreachable

--- 10.99.0.1 ping statistics ---
3 packets transmitted, 2 received, 33% packet loss, time 4ms
rtt min/avg/max/mdev = 0.250/6.125/12.000/5.875 ms
`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]float64{250, 12000}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := parsePing([]byte("PING\n")); err == nil {
		t.Error("output without answers returned no error")
	}
}

func TestPercentiles(t *testing.T) {
	trips := make([]float64, 101)
	for i := range trips {
		trips[i] = float64(i)
	}
	want := sample.Values{sample.P50: 50, sample.P90: 90, sample.P99: 99}
	if diff := cmp.Diff(want, percentiles(trips)); diff != "" {
		t.Error(diff)
	}
}

func TestSelect(t *testing.T) {
	got, err := Select([]string{"ping", "tcp1"})
	if err != nil || len(got) != 2 || got[0].Name != "tcp1" || got[1].Name != "ping" {
		t.Errorf("Select = %v, %v", got, err)
	}
	if all, err := Select(nil); err != nil || len(all) != len(All()) {
		t.Errorf("Select of nothing gave %d loads, %v", len(all), err)
	}
	if _, err := Select([]string{"tcp1", "nonsense"}); err == nil || !strings.Contains(err.Error(), `"nonsense"`) {
		t.Errorf("Select of nonsense: %v", err)
	}
	seen := map[string]bool{}
	for _, l := range All() {
		if seen[l.Name] || l.Summary == "" || l.Shape == 0 || l.Run == nil || l.Headline.Info().Unit == "" {
			t.Errorf("load %q exists twice or is not complete", l.Name)
		}
		seen[l.Name] = true
	}
}
