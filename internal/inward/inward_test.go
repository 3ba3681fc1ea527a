package inward

import (
	"net/netip"
	"testing"

	"weft/internal/ether"
)

func TestValidate(t *testing.T) {
	good := Ruleset{Ranges: []netip.Prefix{netip.MustParsePrefix("10.32.0.0/12")}, Bridge: "weave", Uplinks: []string{"weft*"},
		MAC: ether.Addr{6, 1}, Gateways: []ether.Addr{{6, 2}}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Ruleset){
		"no range":         func(r *Ruleset) { r.Ranges = []netip.Prefix{{}} },
		"mapped range":     func(r *Ruleset) { r.Ranges = []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")} },
		"no bridge":        func(r *Ruleset) { r.Bridge = "" },
		"pattern":          func(r *Ruleset) { r.Bridge = "we*" },
		"quote":            func(r *Ruleset) { r.Uplinks = []string{`we"ft`} },
		"no MAC":           func(r *Ruleset) { r.MAC = ether.Addr{} },
		"group as gateway": func(r *Ruleset) { r.Gateways = []ether.Addr{{1}} },
	} {
		bad := good
		change(&bad)
		if bad.Validate() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
