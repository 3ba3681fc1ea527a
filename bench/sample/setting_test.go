package sample

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseSettings(t *testing.T) {
	for _, s := range Settings() {
		got, err := ParseSettings([]string{s.String()})
		if err != nil || len(got) != 1 || got[0] != s {
			t.Errorf("%v: %v, %v", s, got, err)
		}
	}
	got, err := ParseSettings([]string{"veth-pinned", "plain"})
	if diff := cmp.Diff([]Setting{{PlainUnderlay, Free}, {Veth, Pinned}}, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if got, err := ParseSettings([]string{AllSettings}); err != nil || len(got) != len(Settings()) {
		t.Errorf("all: %v, %v", got, err)
	}
	if _, err := ParseSettings([]string{"plain", "nonsense"}); err == nil {
		t.Error("an unknown setting returned no error")
	}
}

// TestFiguresOfSettingsDoNotMix has the same round, driver and load in two settings, one as earlier versions wrote it.
func TestFiguresOfSettingsDoNotMix(t *testing.T) {
	var r Results
	err := json.Unmarshal([]byte(`{"samples": [
		{"round": 1, "driver": "weft", "load": "tcp1", "values": {"gbps": 4}},
		{"round": 1, "driver": "vxlan", "load": "tcp1", "values": {"gbps": 8}},
		{"round": 1, "driver": "weft", "load": "tcp1", "underlay": "plain", "placement": "pinned", "values": {"gbps": 2}},
		{"round": 1, "driver": "vxlan", "load": "tcp1", "underlay": "plain", "placement": "pinned", "values": {"gbps": 2}}
	]}`), &r)
	if err != nil {
		t.Fatal(err)
	}
	old, pinned := Setting{Veth, Free}, Setting{PlainUnderlay, Pinned}
	if diff := cmp.Diff([]Setting{old, pinned}, r.Settings()); diff != "" {
		t.Error(diff)
	}
	for s, want := range map[Setting]float64{old: 0.5, pinned: 1} {
		if q := r.In(s).Ratio("weft", "vxlan", "tcp1", Gbps); q.N != 1 || q.Median != want {
			t.Errorf("%v: %+v, want %v", s, q, want)
		}
	}
	if got := (&Results{}).Settings(); len(got) != 1 || got[0] != old {
		t.Errorf("no samples: %v", got)
	}
}
