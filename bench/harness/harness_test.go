package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/bench/driver"
	"weft/bench/load"
	"weft/bench/probe"
	"weft/bench/report"
	"weft/bench/sample"
	"weft/internal/nettest/labtest"
)

// TestMain lets this program be the child of a probe.
func TestMain(m *testing.M) {
	probe.Child()
	os.Exit(m.Run())
}

// TestRun runs a minimal bench, with one driver that cannot start.
func TestRun(t *testing.T) {
	labtest.RequireRoot(t)
	dir := t.TempDir()
	var out, progress bytes.Buffer
	o := Options{
		Rounds: 1, Seconds: 1, Drivers: []string{"raw", "vxlan", "weft"}, Loads: []string{"tcp1", "rr"},
		NoFetch: true, Bin: filepath.Join(dir, "none"), Out: dir, Command: "weft-bench run",
	}
	cfg, err := o.config(&progress)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Patience = 0 // the test does not check the figures
	run, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	if err := o.write(run, &out, &progress); err != nil {
		t.Fatal(err)
	}
	r, err := report.Read(filepath.Join(dir, report.ResultsFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"raw", "vxlan"} {
		for load, m := range map[string]sample.Metric{"tcp1": sample.Gbps, "rr": sample.P50} {
			if s := r.Of(d, load, m); s.N != 1 || s.Median <= 0 {
				t.Errorf("%s of %s through %s: %+v\n%s", m, load, d, s, &progress)
			}
		}
	}
	if d, ok := r.Find("weft"); !ok || !strings.Contains(d.Unavailable, "make build") {
		t.Errorf("weft without programs: %+v", d)
	}
	if q := r.Ratio("raw", "vxlan", "tcp1", sample.Gbps); q.N != 1 {
		t.Errorf("ratio %+v", q)
	}
	for _, name := range []string{"report.md", "throughput.svg", "throughput.png"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !strings.Contains(out.String(), "## Targets") {
		t.Errorf("printed:\n%s", &out)
	}
}

func TestSentence(t *testing.T) {
	err := fmt.Errorf("%w: %w", driver.ErrUnavailable, errors.New("driver: weft: no\nhint: yes"))
	if got := sentence(err); got != "weft: no hint: yes" {
		t.Errorf("sentence = %q", got)
	}
}

func TestClock(t *testing.T) {
	loads, err := load.Select([]string{"tcp1", "ping"})
	if err != nil {
		t.Fatal(err)
	}
	c := newClock(Config{Rounds: 2, Seconds: 2, Loads: loads, Settings: make([]sample.Setting, 1)}, 2)
	if got := c.left(); got != 8*5*time.Second {
		t.Errorf("at first %v", got)
	}
	c.done("tcp1", 9*time.Second)
	if got := c.left(); got != (3*9+4*5)*time.Second {
		t.Errorf("after one %v", got)
	}
	c.drop(loads, 2)
	if got := c.left(); got != (1*9+2*5)*time.Second {
		t.Errorf("without one driver %v", got)
	}
}

func TestQuick(t *testing.T) {
	c, err := Options{Quick: true, Loads: []string{"rr"}}.config(&bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Drivers) != len(quickDrivers) || len(c.Loads) != 1 || c.Rounds != quickRounds || c.Budget == 0 {
		t.Errorf("quick is %+v", c)
	}
	if c, err = (Options{}).config(&bytes.Buffer{}); err != nil || len(c.Drivers) < 8 || c.Rounds != 5 || c.Seconds != 5 || c.Budget != 0 {
		t.Errorf("full is %+v, %v", c, err)
	}
	if _, err := (Options{Drivers: []string{"x"}}).config(&bytes.Buffer{}); err == nil {
		t.Error("an unknown driver returned no error")
	}
}
