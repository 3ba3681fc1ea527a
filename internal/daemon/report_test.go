package daemon

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestReportWords(t *testing.T) {
	for want, v := range map[string]any{"": netip.Addr{}, "192.0.2.1": netip.MustParseAddr("192.0.2.1"), "[]": []string{}, "true": true} {
		if got := settingText(v); got != want {
			t.Errorf("settingText(%v) = %q, want %q", v, got, want)
		}
	}
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

// TestReportRoutesAreBounded: of a host with the routes of the Internet a report has some, and says how many are missing.
func TestReportRoutesAreBounded(t *testing.T) {
	if texts, left := routeTexts(make([]netlink.Route, routesMost+7), nil); len(texts) != routesMost || left != 7 {
		t.Errorf("%d routes, %d left out", len(texts), left)
	}
	if texts, left := routeTexts(make([]netlink.Route, 3), nil); len(texts) != 3 || left != 0 {
		t.Errorf("%d routes, %d left out", len(texts), left)
	}
}
