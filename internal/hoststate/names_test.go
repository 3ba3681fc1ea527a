package hoststate_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weft/internal/hoststate"
)

// TestNames: links that were renamed get their names back, unless another link has the name by now or the link is another one.
func TestNames(t *testing.T) {
	before := hoststate.Observed{Links: map[string]hoststate.Link{
		"weave":  {Name: "weave", Kind: "bridge", Index: 3},
		"weft0":  {Name: "weft0", Kind: "tun", Index: 4},
		"vweft1": {Name: "vweft1", Kind: "veth", Index: 5},
		"eth0":   {Name: "eth0", Index: 2},
	}}
	rename := func(from, to string) hoststate.Action {
		return hoststate.Action{Kind: hoststate.Rename, Link: from, Text: to, Have: from}
	}
	for _, c := range []struct {
		what string
		now  []hoststate.Link
		want []hoststate.Action
	}{
		{"deleted", nil, nil},
		{"renamed", []hoststate.Link{{Name: "br9", Kind: "bridge", Index: 3}, {Name: "tap9", Kind: "tun", Index: 4},
			{Name: "a9", Kind: "veth", Index: 5}, {Name: "lan", Index: 2}},
			[]hoststate.Action{rename("a9", "vweft1"), rename("br9", "weave"), rename("tap9", "weft0")}},
		{"renamed, and another one has the name",
			[]hoststate.Link{{Name: "br9", Kind: "bridge", Index: 3}, {Name: "weave", Kind: "bridge", Index: 9}}, nil},
		{"another one with the index", []hoststate.Link{{Name: "br9", Kind: "dummy", Index: 3}}, nil},
	} {
		var names hoststate.Names
		names.Remember(desired(), before)
		o := hoststate.Observed{Links: map[string]hoststate.Link{}}
		for _, l := range c.now {
			o.Links[l.Name] = l
		}
		if diff := cmp.Diff(c.want, names.Observe(o), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}
}
