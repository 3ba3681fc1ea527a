package hostwatch

import (
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
	"weft/internal/nftwatch"
)

// TestMatters: changes of the tables of policies do not wake, unless another table changes in the same transaction.
func TestMatters(t *testing.T) {
	h := labtest.AddHost(t, labtest.New(t, nettest.Config{}), "host")
	var conn *netlink.Conn
	if err := h.Do(func() (err error) { conn, err = netlink.Dial(unix.NETLINK_NETFILTER, nil); return err }); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.JoinGroup(filterGroup); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		script string
		want   bool
	}{
		{"add table inet weft-policy; add set inet weft-policy s { type ipv4_addr; }", false},
		{"add element inet weft-policy s { 192.0.2.1 }; add table bridge weft-policy", false},
		{"add set inet weft-policy s2 { type ipv4_addr; }; add table inet other", true},
		{"add chain inet other c", true},
		{"flush ruleset", true},
	} {
		labtest.Run(t, h.Space, "nft", c.script)
		var reported []netlink.Message
		for ended := false; !ended; {
			messages, err := conn.Receive()
			if err != nil {
				t.Fatal(err)
			}
			reported = append(reported, messages...)
			_, ok := nftwatch.TableOf(messages[len(messages)-1])
			ended = !ok // the end of the transaction
		}
		if got := slices.ContainsFunc(reported, matters); got != c.want {
			t.Errorf("%s: wakes %v, want %v", c.script, got, c.want)
		}
	}
}
