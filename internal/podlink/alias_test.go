package podlink

import (
	"strings"
	"testing"
)

func TestAlias(t *testing.T) {
	long := "/" + strings.Repeat("x", 240)
	for text, o := range map[string]Origin{
		"":                                       {},
		"weft: addresses by another IPAM plugin": {Delegated: true}, // on links of older versions
		"weft: pod; pending":                     {Pending: true},
		"weft: pod; by /usr/bin/containerd":      {Runtime: "/usr/bin/containerd"},
		"weft: pod; by /opt/a; pending":          {Runtime: "/opt/a; pending"},
		"weft: pod; no hairpin":                  {NoHairpin: true},
		"weft: addresses by another IPAM plugin; pending; no hairpin; for cni/net/c1/eth0; by /usr/bin/podman": {
			Delegated: true, Pending: true, NoHairpin: true, Holder: "cni/net/c1/eth0", Runtime: "/usr/bin/podman",
		},
	} {
		if got := o.alias(); got != text {
			t.Errorf("alias of %+v: %q, want %q", o, got, text)
		}
		if got := ParseOrigin(text); got != o {
			t.Errorf("%q: %+v, want %+v", text, got, o)
		}
	}
	if got := (Origin{Pending: true, Holder: "cni/net/c1/eth0", Runtime: long}).alias(); got != "weft: pod; pending; for cni/net/c1/eth0" {
		t.Errorf("an alias that is too long: %q", got)
	}
	for _, other := range []string{"uplink", "weft: pods", "weft: pod by x"} {
		if got := ParseOrigin(other); got != (Origin{}) {
			t.Errorf("%q: %+v, want nothing", other, got)
		}
	}
}
