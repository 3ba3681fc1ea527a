package gate

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/bench/sample"
	"weft/internal/hint"
)

// run returns results of three rounds in one setting, in which weft's throughput is gbps in the second round, 10 % less in
// the first and 10 % more in the third, that of vxlan is 10, and the idle ping of weft is p50.
func run(gbps, p50 float64) *sample.Results {
	r := &sample.Results{
		Rounds: 3, Seconds: 2, Machine: sample.Machine{CPU: "a CPU", Cores: 2},
		Drivers: []sample.Driver{{Name: "vxlan"}, {Name: "weft"}},
		Loads:   []sample.Load{{Name: "tcp1"}, {Name: "ping"}, {Name: "idle"}},
	}
	for i, f := range []float64{0.9, 1, 1.1} {
		add := func(driver, load string, v sample.Values) {
			r.Samples = append(r.Samples, sample.Sample{
				Round: i + 1, Driver: driver, Load: load, Values: v, Setting: sample.Setting{Underlay: sample.PlainUnderlay},
			})
		}
		add("vxlan", "tcp1", sample.Values{sample.Gbps: 10})
		add("weft", "tcp1", sample.Values{sample.Gbps: gbps * f})
		add("vxlan", "ping", sample.Values{sample.P50: 20})
		add("weft", "ping", sample.Values{sample.P50: p50 * f})
		add("weft", "idle", sample.Values{sample.RSS: 20})
	}
	return r
}

func TestNewKeepsSteadyRatios(t *testing.T) {
	f, err := New(run(5, 60))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"plain"}, f.Settings()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"weft", "vxlan"}, f.Drivers()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"tcp1", "ping"}, f.Loads()); diff != "" {
		t.Error(diff)
	}
	path := filepath.Join(t.TempDir(), "gate.json")
	if err := f.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(f, got); diff != "" {
		t.Error(diff)
	}
	if _, err := New(&sample.Results{Drivers: []sample.Driver{{Name: "vxlan"}}}); err == nil {
		t.Error("a run without weft was stored")
	}
}

// TestCompare: the stored spreads are 0.45–0.55 and 2.7–3.3, which the margin widens by 10 %.
func TestCompare(t *testing.T) {
	f, err := New(run(5, 60))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name          string
		gbps, p50     float64
		worse, better int
	}{
		{"the same", 5, 60, 0, 0},
		{"within the spread", 4.5, 66, 0, 0},
		{"within the margin", 4.1, 72, 0, 0},
		{"slower", 4, 60, 1, 0},
		{"later", 5, 74, 1, 0},
		{"faster and earlier", 6.1, 48, 0, 2},
		{"slower and earlier", 2, 20, 1, 1},
	} {
		o := f.Compare(run(c.gbps, c.p50))
		if o.Compared != 2 || len(o.Worse) != c.worse || len(o.Better) != c.better {
			t.Errorf("%s: %+v", c.name, o)
		}
		if err := o.Err(); errors.Is(err, ErrWorse) != (c.worse > 0) || (err != nil) != (c.worse > 0) {
			t.Errorf("%s: %v", c.name, err)
		}
		if strings.Contains(o.Notes(), "--gate-write") != (c.better > 0) {
			t.Errorf("%s: notes %q", c.name, o.Notes())
		}
	}
}

func TestCompareNamesEachWorseRatio(t *testing.T) {
	f, err := New(run(5, 60))
	if err != nil {
		t.Fatal(err)
	}
	text := f.Compare(run(4, 60)).Err().Error()
	const want = "plain: throughput of weft, tcp1, against vxlan: 0.400 x (0.360–0.440), stored 0.500 x (0.450–0.550)"
	if !strings.Contains(text, want) {
		t.Errorf("%q does not contain %q", text, want)
	}
}

func TestComparePartOfTheStoredRatios(t *testing.T) {
	f, err := New(run(5, 60))
	if err != nil {
		t.Fatal(err)
	}
	r := run(5, 60)
	r.Loads = r.Loads[:1]
	if o := f.Compare(r); o.Compared != 1 || o.Err() != nil {
		t.Errorf("one load: %+v", o)
	}
	r = run(5, 60)
	r.Samples = r.Samples[:2] // the first round of tcp1 only
	if o := f.Compare(r); o.Compared != 2 || len(o.Worse) != 1 || !strings.Contains(o.Worse[0], "not measured") {
		t.Errorf("no ping: %+v", o)
	}
	r = run(5, 60)
	for i := range r.Samples {
		r.Samples[i].Setting = sample.Setting{}
	}
	if o := f.Compare(r); o.Compared != 0 || o.Err() == nil {
		t.Errorf("another setting: %+v", o)
	}
	r = run(5, 60)
	r.Machine.Cores = 64
	if o := f.Compare(r); !strings.Contains(o.Notes(), "another machine") {
		t.Errorf("another machine: %q", o.Notes())
	}
}

func TestReadRefusesInvalidFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gate.json")
	_, err := Read(path)
	if e, ok := errors.AsType[*hint.Error](err); !ok || !strings.Contains(e.Hint, "--gate-write="+path) {
		t.Errorf("a missing file: %v", err)
	}
	const ratio = `"driver": "weft", "base": "vxlan", "load": "tcp1", "metric": "gbps"`
	for _, text := range []string{
		``, `{}`, `{"rounds": 1, "seconds": 1, "ratios": [{}]}`,
		`{"rounds": 1, "seconds": 1, "ratios": [{"setting": "x", ` + ratio + `, "median": 1, "min": 1, "max": 1}]}`,
		`{"rounds": 1, "seconds": 1, "ratios": [{"setting": "all", ` + ratio + `, "median": 1, "min": 1, "max": 1}]}`,
		`{"rounds": 1, "seconds": 1, "ratios": [{"setting": "veth", ` + ratio + `, "median": 1, "min": 2, "max": 3}]}`,
		`{"rounds": 1, "seconds": 1, "margin": 1, "ratios": [{"setting": "veth", ` + ratio + `, "median": 1, "min": 1, "max": 1}]}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil {
			t.Errorf("accepted %s", text)
		}
	}
}
