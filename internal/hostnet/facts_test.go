package hostnet

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestRouteText(t *testing.T) {
	_, dst, err := net.ParseCIDR("10.32.0.0/12")
	if err != nil {
		t.Fatal(err)
	}
	names := map[int]string{3: "weave"}
	for want, r := range map[string]netlink.Route{
		"10.32.0.0/12 dev weave":               {Dst: dst, LinkIndex: 3},
		"10.32.0.0/12 via 192.0.2.1 dev weave": {Dst: dst, Gw: net.ParseIP("192.0.2.1"), LinkIndex: 3},
		"10.32.0.0/12 via 192.0.2.1":           {Dst: dst, Gw: net.ParseIP("192.0.2.1")},
	} {
		if got := routeText(r, names); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestRoutesAreBounded: the facts of a host with the routes of the Internet contain some of them and the number of the rest.
func TestRoutesAreBounded(t *testing.T) {
	if texts, omitted := routeTexts(make([]netlink.Route, maxRoutes+7), nil); len(texts) != maxRoutes || omitted != 7 {
		t.Errorf("%d routes, %d omitted", len(texts), omitted)
	}
	if texts, omitted := routeTexts(make([]netlink.Route, 3), nil); len(texts) != 3 || omitted != 0 {
		t.Errorf("%d routes, %d omitted", len(texts), omitted)
	}
}
