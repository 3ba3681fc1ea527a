package harness

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/bench/gate"
	"weft/bench/sample"
)

// measured returns results with one ratio of weft to vxlan.
func measured(gbps float64) *sample.Results {
	r := &sample.Results{
		Rounds: 4, Seconds: 7, Drivers: []sample.Driver{{Name: "vxlan"}, {Name: "weft"}}, Loads: []sample.Load{{Name: "tcp1"}},
	}
	for driver, v := range map[string]float64{"vxlan": 10, "weft": gbps} {
		r.Samples = append(r.Samples, sample.Sample{
			Round: 1, Driver: driver, Load: "tcp1", Values: sample.Values{sample.Gbps: v},
			Setting: sample.Setting{Underlay: sample.PlainUnderlay, Placement: sample.Pinned},
		})
	}
	return r
}

func TestGate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gate.json")
	if _, err := (&Options{Gate: path}).prepareGate(); err == nil {
		t.Error("a missing file returned no error")
	}
	var out bytes.Buffer
	if err := (&Options{GateWrite: path}).finishGate(nil, measured(5), &out); err != nil {
		t.Fatal(err)
	}
	o := Options{Gate: path, Drivers: []string{"vxlan", "weft", "tinc"}}
	stored, err := o.prepareGate()
	if err != nil {
		t.Fatal(err)
	}
	want := Options{
		Gate: path, Settings: []string{"plain-pinned"}, Drivers: []string{"vxlan", "weft", "tinc"}, Loads: []string{"tcp1"},
		Rounds: 4, Seconds: 7,
	}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Error(diff)
	}
	if err := o.finishGate(stored, measured(5), &out); err != nil {
		t.Error(err)
	}
	if err := o.finishGate(stored, measured(3), &out); !errors.Is(err, gate.ErrWorse) {
		t.Errorf("a slower run: %v", err)
	}
}

func TestGateWriteMeasuresWhatTheFileNeeds(t *testing.T) {
	o := Options{GateWrite: filepath.Join(t.TempDir(), "gate.json"), Pin: true}
	if stored, err := o.prepareGate(); stored != nil || err != nil {
		t.Fatalf("%v, %v", stored, err)
	}
	c, err := o.config(&bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	pinned := []sample.Setting{{Underlay: sample.Veth, Placement: sample.Pinned}}
	if diff := cmp.Diff(pinned, c.Settings); diff != "" || len(c.Drivers) != len(gate.DefaultDrivers) || c.Rounds != gateRounds {
		t.Errorf("%d drivers, %d rounds\n%s", len(c.Drivers), c.Rounds, diff)
	}
	for _, bad := range []Options{{GateWrite: "/no/such/folder/gate.json"}, {Gate: "x", Quick: true}} {
		if _, err := bad.prepareGate(); err == nil {
			t.Errorf("%+v returned no error", bad)
		}
	}
}

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want []sample.Setting
	}{
		{Options{}, []sample.Setting{{Underlay: sample.Veth, Placement: sample.Free}}},
		{Options{Plain: true, Pin: true}, []sample.Setting{{Underlay: sample.PlainUnderlay, Placement: sample.Pinned}}},
		{Options{Settings: []string{"all"}}, sample.Settings()},
	} {
		got, err := c.o.settings()
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%+v: %v\n%s", c.o, err, diff)
		}
	}
	if _, err := (Options{Settings: []string{"all"}, Pin: true}).settings(); err == nil {
		t.Error("--settings with --pin-hosts returned no error")
	}
	if checkCores(1) == nil || checkCores(2) != nil {
		t.Error("pinned hosts need two cores")
	}
}
