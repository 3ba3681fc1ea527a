package report

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/bench/sample"
)

var rewrite = flag.Bool("rewrite", false, "write the golden report again")

// results returns a run of two rounds with spread, a failure and a driver that is not available.
func results() *sample.Results {
	r := &sample.Results{
		Command: "bin/weft-bench run --rounds 2", Date: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC), Weft: "v0.1.0",
		Machine: sample.Machine{
			CPU: "a CPU", Cores: 2, MemoryGB: 24, Kernel: "6.18.0", Go: "go1.26", Iperf3: "iperf 3.12",
			Sysctls: map[string]string{"net.core.rmem_max": "212992"},
		},
		Rounds: 2, Seconds: 5, Underlay: "veth pairs",
		Drivers: []sample.Driver{
			{Name: "vxlan", Summary: "the kernel's VXLAN", Facts: sample.Facts{Version: "Linux 6.18.0", MTU: 1450, Ends: "pods"}},
			{Name: "weft", Summary: "weft, plain", Facts: sample.Facts{Version: "v0.1.0", MTU: 1438, Ends: "pods", Tuned: []string{"flags: a|b"}}},
			{Name: "weft-aes", Summary: "weft, sealed", Unavailable: "weft: this version cannot encrypt yet"},
			{Name: "wireguard-go", Summary: "wireguard-go", Facts: sample.Facts{
				Version: "v1", MTU: 1420, Ends: "hosts", Encrypted: true, Cipher: "chacha20-poly1305",
			}},
		},
		Loads: []sample.Load{
			{Name: "tcp1", Summary: "one stream"}, {Name: "ping", Summary: "pings"}, {Name: "udp64", Summary: "datagrams"},
		},
	}
	add := func(round int, driver, load string, values sample.Values) {
		r.Samples = append(r.Samples, sample.Sample{Round: round, Driver: driver, Load: load, Values: values, Tries: 1})
	}
	for i, f := range []float64{1, 1.5} {
		round := i + 1
		add(round, "vxlan", "tcp1", sample.Values{sample.Gbps: 10 * f, sample.MachineCPU: 0.8, sample.Retransmits: 3})
		add(round, "weft", "tcp1", sample.Values{
			sample.Gbps: 8 * f, sample.MachineCPU: 1.6, sample.DaemonCPU: 1.1 * f, sample.RSS: 20, sample.Retransmits: 0,
		})
		add(round, "wireguard-go", "tcp1", sample.Values{
			sample.Gbps: 2 * f, sample.MachineCPU: 6, sample.DaemonCPU: 5 * f, sample.RSS: 200,
		})
		add(round, "vxlan", "ping", sample.Values{sample.P50: 20 * f, sample.P90: 30, sample.P99: 40})
		add(round, "weft", "ping", sample.Values{sample.P50: 60 * f, sample.P90: 90, sample.P99: 120})
		add(round, "wireguard-go", "ping", sample.Values{sample.P50: 58 * f, sample.P90: 300, sample.P99: 400})
		add(round, "vxlan", "udp64", sample.Values{sample.Kpps: 100})
		add(round, "weft", "udp64", sample.Values{sample.Kpps: 50})
	}
	r.Samples = append(r.Samples, sample.Sample{Round: 1, Driver: "wireguard-go", Load: "udp64", Error: "the daemon ended", Tries: 3})
	r.Samples[0].Busy = true
	return r
}

// inSettings returns results with the samples of results in all settings, and with events in the last.
func inSettings() *sample.Results {
	r := results()
	once := r.Samples
	r.Samples = nil
	for _, setting := range sample.Settings() {
		for _, s := range once {
			s.Setting, s.Values = setting, maps.Clone(s.Values)
			if s.Driver == "weft" && s.Load == "tcp1" {
				s.Values[sample.ContextSwitches] = 1000
			}
			r.Samples = append(r.Samples, s)
		}
	}
	r.Machine.NotCounted = map[string]string{"cache-misses": "the machine has no counter for it"}
	return r
}

func TestMarkdownGolden(t *testing.T) {
	compareGolden(t, "report.md", results())
}

func TestMarkdownGoldenInAllSettings(t *testing.T) {
	compareGolden(t, "settings.md", inSettings())
}

// compareGolden compares the report with a file in testdata, or writes the file with -rewrite.
func compareGolden(t *testing.T, file string, r *sample.Results) {
	t.Helper()
	golden := filepath.Join("testdata", file)
	got := Markdown(r, "benchmarks/")
	if *rewrite {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("the report changed (use -rewrite to accept the change):\n%s", diff)
	}
}

func TestText(t *testing.T) {
	if text := Text(results()); strings.Contains(text, "![") {
		t.Error("the report for a terminal has pictures")
	}
}

func TestJudge(t *testing.T) {
	r := results()
	for _, c := range []struct {
		target   target
		measured string
		result   string
	}{
		{target{"", "weft", "tcp1", sample.Gbps, ratio, "vxlan", anyUnderlay, at(0.5), at(0.8)}, "0.80 x (0.80–0.80)", "**aim met**"},
		{target{"", "weft", "tcp1", sample.Gbps, ratio, "wireguard-go", anyUnderlay, at(3), at(5)}, "4.00 x (4.00–4.00)", "met"},
		{target{"", "weft", "udp64", sample.Kpps, ratio, "vxlan", anyUnderlay, at(0.8), at(1)}, "0.50 x (0.50–0.50)", "**missed**"},
		{target{"", "weft", "tcp1", sample.DaemonCPU, absolute, "", anyUnderlay, at(1.4), at(0.7)}, "1.38 s/GB (1.10–1.65)", "met"},
		{target{"", "weft", "ping", sample.P50, difference, "vxlan", anyUnderlay, bound{}, at(20)}, "+50 µs", "aim missed"},
		{target{"", "weft-aes", "tcp1", sample.Gbps, ratio, "vxlan", anyUnderlay, at(1), at(1)}, "", "not measured: weft-aes is not available"},
		{target{"", "weft", "ping", sample.P50, ratio, "tinc", anyUnderlay, at(1), bound{}}, "", "not measured: the run had no tinc"},
		{target{"", "wireguard-go", "udp64", sample.Kpps, absolute, "", anyUnderlay, at(1), bound{}}, "",
			"not measured: no udp64 through wireguard-go"},
	} {
		if v := c.target.judge(r); v.measured != c.measured || v.result != c.result {
			t.Errorf("%s %s: %q, %q; want %q, %q", c.target.driver, c.target.load, v.measured, v.result, c.measured, c.result)
		}
	}
}

func TestWriteReadRender(t *testing.T) {
	dir := t.TempDir()
	want := results()
	if err := Write(want, dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, ResultsFile)
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the results changed by writing and reading:\n%s", diff)
	}
	var out strings.Builder
	doc := filepath.Join(dir, "docs", "BENCHMARKS.md")
	if err := os.Mkdir(filepath.Dir(doc), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Render(path, Options{Markdown: true, Doc: doc}, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "](throughput.svg)") {
		t.Error("no link to a picture beside the report")
	}
	page, err := os.ReadFile(doc)
	if err != nil || !strings.Contains(string(page), "](benchmarks/throughput.svg)") {
		t.Errorf("no link from the page to its pictures: %v", err)
	}
	for _, picture := range []string{"throughput.svg", "cpu.png", "latency.svg"} {
		if _, err := os.Stat(filepath.Join(dir, "docs", "benchmarks", picture)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "latency-bulk.svg")); err == nil {
		t.Error("a picture exists for a load that was not measured")
	}
}

func TestPicturesOfEachUnderlay(t *testing.T) {
	dir := t.TempDir()
	if err := Plot(inSettings(), dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"throughput.svg": true, "throughput-veth.svg": true, "throughput-plain-pinned.svg": false} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWriteDocKeepsOtherSections(t *testing.T) {
	page := filepath.Join(t.TempDir(), "BENCHMARKS.md")
	const rest = "\n## Scale\n\nkept\n\n## The guard\n\nkept, too\n"
	if err := os.WriteFile(page, []byte("# Benchmarks\n\nreplaced\n"+rest), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteDoc(results(), page); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil || !strings.HasSuffix(string(text), rest) || strings.Contains(string(text), "replaced") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestReadNamesTheUnderlayOfEarlierVersions(t *testing.T) {
	path := filepath.Join(t.TempDir(), ResultsFile)
	for underlay, want := range map[string]sample.Underlay{
		"veth pairs on a bridge, MTU 1500, sending without segmentation offloads, receiving with GRO": sample.PlainUnderlay,
		"veth pairs on a bridge, MTU 1500: batches of up to 64 KB pass as one packet":                 sample.Veth,
	} {
		text := `{"underlay": "` + underlay + `", "samples": [{"round": 1, "driver": "weft", "load": "tcp1"}]}`
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		r, err := Read(path)
		if err != nil || r.Settings()[0].Underlay != want {
			t.Errorf("%s: %v, %v", underlay, r.Settings(), err)
		}
	}
}
