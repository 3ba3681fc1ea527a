package hostfilter

import (
	"os"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/internal/netdump"
)

// Attributes of a bridge (linux/if_link.h): whether its frames pass the filters of IPv4 and IPv6, whatever the host's setting.
const (
	attrCallIPTables  = 36 // IFLA_BR_NF_CALL_IPTABLES
	attrCallIP6Tables = 37 // IFLA_BR_NF_CALL_IP6TABLES
)

// Filtered reports whether frames that a bridge forwards pass the host's filters of IPv4 and IPv6: because of the setting of the
// host, net.bridge.bridge-nf-call-iptables, or that of the bridge. Without the module br_netfilter they do not.
func Filtered(bridge string) (v4, v6 bool) {
	own := bridgeSettings(bridge)
	return isOn("bridge-nf-call-iptables") || own[attrCallIPTables], isOn("bridge-nf-call-ip6tables") || own[attrCallIP6Tables]
}

// isOn reports whether a setting of br_netfilter is 1.
func isOn(name string) bool {
	text, err := os.ReadFile("/proc/sys/net/bridge/" + name)
	return err == nil && strings.TrimSpace(string(text)) == "1"
}

// bridgeSettings returns the switches among the settings of a bridge, by attribute; none if there is no such bridge.
func bridgeSettings(bridge string) map[uint16]bool {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(bridge)))
	messages, err := netdump.Repeat(func() ([][]byte, error) { return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK) })
	if err != nil || len(messages) != 1 || len(messages[0]) < unix.SizeofIfInfomsg {
		return nil
	}
	settings := map[uint16]bool{}
	for _, info := range attributes(messages[0][unix.SizeofIfInfomsg:], unix.IFLA_LINKINFO) {
		for _, data := range attributes(info, unix.IFLA_INFO_DATA) {
			for _, attr := range []uint16{attrCallIPTables, attrCallIP6Tables} {
				for _, value := range attributes(data, attr) {
					settings[attr] = len(value) == 1 && value[0] == 1
				}
			}
		}
	}
	return settings
}

// attributes returns the values of the attributes of a type.
func attributes(b []byte, kind uint16) (values [][]byte) {
	list, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil
	}
	const typeMask = 1<<14 - 1 // the upper bits are flags
	for _, a := range list {
		if a.Attr.Type&typeMask == kind {
			values = append(values, a.Value)
		}
	}
	return values
}
