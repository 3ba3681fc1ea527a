package podlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
)

// loopback is the index of the loopback interface in every namespace (net/core/net_namespace.c).
const loopback = 1

// End is the pod end of a port as it is now: the pod may have changed it since it was attached.
type End struct {
	MAC ether.Addr
	// Addrs are its addresses, with link-local ones, and those of the pod's loopback interface that other hosts may know.
	Addrs []netip.Addr
	// Lower says that other interfaces of the pod send through it: it is a port of a bridge or a bond, or has a VLAN, macvlan or
	// similar on it.
	Lower bool
}

// End returns the pod end. It enters no namespace (RTM_GETLINK with IFLA_TARGET_NETNSID, rtnetlink(7)). The error wraps ErrOldKernel where
// the kernel cannot.
func (p *Port) End() (End, error) {
	if p.netns < 0 {
		return End{}, fmt.Errorf("podlink: the other end of %s is not in the namespace of a pod", p.Name)
	}
	end, err := linksIn(p.netns, p.peer)
	if err != nil {
		return End{}, err
	}
	for _, index := range []int{p.peer, loopback} {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			addrs, err := everyAddressIn(p.netns, index, family)
			if err != nil {
				return End{}, err
			}
			for _, a := range addrs {
				if index == p.peer || !a.IsLoopback() {
					end.Addrs = append(end.Addrs, a)
				}
			}
		}
	}
	return end, nil
}

// linksIn returns the End of an interface without its addresses, by its index and the ID of its namespace.
func linksIn(netns, index int) (end End, err error) {
	answers, err := dumpIn(unix.RTM_GETLINK, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_UNSPEC),
		nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, nl.Uint32Attr(uint32(netns))))
	if err != nil {
		return end, fmt.Errorf("podlink: list links of another namespace: %w", err)
	}
	found := false
	for _, answer := range answers {
		l, ok := parseLink(answer)
		switch {
		case !ok:
		case l.index == index:
			found, end.MAC, end.Lower = true, l.mac, end.Lower || l.master != 0
		case l.lower == index:
			end.Lower = true
		}
	}
	if !found {
		return end, errors.New("podlink: the interface of the pod is gone")
	}
	return end, nil
}

// innerLink is an interface in the namespace of a pod. lower is the index of the interface below it, in the same namespace; 0: none.
type innerLink struct {
	index, master, lower int
	mac                  ether.Addr
}

// parseLink returns the interface in an RTM_NEWLINK message.
func parseLink(answer []byte) (l innerLink, ok bool) {
	if len(answer) < unix.SizeofIfInfomsg {
		return l, false
	}
	attrs, err := nl.ParseRouteAttr(answer[unix.SizeofIfInfomsg:])
	if err != nil {
		return l, false
	}
	l.index = int(nl.DeserializeIfInfomsg(answer).Index)
	elsewhere := false
	for _, a := range attrs {
		switch {
		case a.Attr.Type == unix.IFLA_ADDRESS && len(a.Value) == len(l.mac):
			l.mac = ether.Addr(a.Value)
		case a.Attr.Type == unix.IFLA_MASTER && len(a.Value) >= 4:
			l.master = int(binary.NativeEndian.Uint32(a.Value))
		case a.Attr.Type == unix.IFLA_LINK && len(a.Value) >= 4:
			l.lower = int(binary.NativeEndian.Uint32(a.Value))
		case a.Attr.Type == unix.IFLA_LINK_NETNSID:
			elsewhere = true
		}
	}
	if elsewhere {
		l.lower = 0
	}
	return l, true
}
