package bridgenf

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/internal/netdump"
)

// options are the attributes of a bridge (linux/if_link.h), in the order of families.
var options = [...]int{nl.IFLA_BR_NF_CALL_IPTABLES, nl.IFLA_BR_NF_CALL_IP6TABLES}

// bridgesOf returns the bridges that have a port with a name of the given prefix.
func bridgesOf(prefix string) ([]bridge, error) {
	answers, err := netdump.Repeat(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	})
	if err != nil {
		return nil, fmt.Errorf("bridgenf: list links: %w", err)
	}
	masters, found := map[int]bool{}, []bridge{}
	for _, answer := range answers {
		link, err := netlink.LinkDeserialize(nil, answer)
		if err != nil {
			return nil, fmt.Errorf("bridgenf: decode link: %w", err)
		}
		if a := link.Attrs(); link.Type() == "bridge" {
			on, err := optionsOf(answer)
			if err != nil {
				return nil, err
			}
			found = append(found, bridge{name: a.Name, index: a.Index, on: on})
		} else if strings.HasPrefix(a.Name, prefix) {
			masters[a.MasterIndex] = true
		}
	}
	var out []bridge
	for _, b := range found {
		if masters[b.index] {
			out = append(out, b)
		}
	}
	return out, nil
}

// optionsOf returns the options in the message of a bridge; nil if it has none of them.
func optionsOf(answer []byte) ([]bool, error) {
	values, err := bridgeData(answer)
	if err != nil {
		return nil, fmt.Errorf("bridgenf: decode bridge: %w", err)
	}
	on, known := make([]bool, len(options)), 0
	for _, v := range values {
		for i, option := range options {
			if int(v.Attr.Type) == option && len(v.Value) > 0 {
				on[i] = v.Value[0] != 0
				known++
			}
		}
	}
	if known < len(options) {
		return nil, nil
	}
	return on, nil
}

// bridgeData returns the attributes in IFLA_LINKINFO, IFLA_INFO_DATA of a message.
func bridgeData(answer []byte) (attrs []syscall.NetlinkRouteAttr, err error) {
	attrs, err = nl.ParseRouteAttr(answer[unix.SizeofIfInfomsg:])
	for _, nested := range []uint16{unix.IFLA_LINKINFO, nl.IFLA_INFO_DATA} {
		if err != nil {
			return nil, err
		}
		outer := attrs
		attrs = nil
		for _, a := range outer {
			if a.Attr.Type&nl.NLA_TYPE_MASK == nested {
				attrs, err = nl.ParseRouteAttr(a.Value)
			}
		}
	}
	return attrs, err
}

// turnOn sets the option of a family. It needs CAP_NET_ADMIN alone, unlike the same setting in /sys.
func (b bridge) turnOn(i int) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(b.index)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(options[i], nl.Uint8Attr(1))
	req.AddData(info)
	if _, err := netdump.Repeat(func() ([][]byte, error) { return req.Execute(unix.NETLINK_ROUTE, 0) }); err != nil {
		return fmt.Errorf("bridgenf: set %s of bridge %s: %w", families[i].option, b.name, err)
	}
	return nil
}
