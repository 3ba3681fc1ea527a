package podlink

import (
	"encoding/hex"
	"net/netip"
	"testing"

	"weft/internal/ether"
)

func TestAnnouncement(t *testing.T) {
	mac := ether.Addr{0x0a, 0x57, 0x0a, 0x20, 0x00, 0x02}
	for _, c := range []struct{ ip, want string }{
		{"10.32.0.2", "ffffffffffff" + "0a570a200002" + "0806" + // Ethernet
			"0001" + "0800" + "06" + "04" + "0001" + // ARP request for Ethernet and IPv4
			"0a570a200002" + "0a200002" + "000000000000" + "0a200002" +
			"000000000000000000000000000000000000"}, // up to 60 bytes
		{"fd32::2", "333300000001" + "0a570a200002" + "86dd" +
			"60000000" + "0020" + "3a" + "ff" + // 32 bytes of ICMPv6, hop limit 255
			"fd320000000000000000000000000002" + "ff020000000000000000000000000001" +
			"88" + "00" + "47bd" + "20000000" + // neighbor advertisement, override
			"fd320000000000000000000000000002" + "0201" + "0a570a200002"}, // target, its link-layer address
	} {
		got := Announcement(mac, netip.MustParseAddr(c.ip))
		if hex.EncodeToString(got) != c.want {
			t.Errorf("announcement of %s:\n got %x\nwant %s", c.ip, got, c.want)
		}
	}
}

func TestHostLinkName(t *testing.T) {
	a, b := HostLinkName("owner", "eth0"), HostLinkName("owner", "eth1")
	if a != "vweftritbh34tao" { // another name would orphan the links of running pods at an upgrade
		t.Errorf("HostLinkName(owner, eth0) = %q", a)
	}
	if a == b || a == HostLinkName("ownere", "th0") {
		t.Error("different interfaces have one name")
	}
	if !validName(a) || !validName(b) {
		t.Errorf("%q or %q is not a valid name", a, b)
	}
	if mac := HostLinkMAC(a); mac[0] != 0xfe || mac == HostLinkMAC(b) {
		t.Errorf("HostLinkMAC = %s", mac)
	}
}
