package driver

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"weft/bench/lab"
	"weft/internal/nettest"
)

// routed is pods that the hosts route to each other by hand, without a bridge or any rule: the base of weft-direct.
type routed struct{}

// Name implements Driver.
func (routed) Name() string { return "routed" }

// Summary implements Driver.
func (routed) Summary() string {
	return "pods that the kernel routes over the underlay without a header, by hand: the base of weft-direct"
}

// Prepare implements Driver.
func (routed) Prepare(context.Context, *Tools) error { return nil }

// Up implements Driver.
func (r routed) Up(ctx context.Context, l *lab.Lab) (*Overlay, error) {
	o := &Overlay{}
	for i, h := range l.Ends {
		pod, err := h.AddPod("pod")
		if err != nil {
			return o, err
		}
		if _, err := h.Run(ctx, "sh", "-ec", r.script(l, i, pod)); err != nil {
			return o, err
		}
		o.Ends = append(o.Ends, lab.End{Space: pod.Space, Addr: routedAddr(i, 2)})
	}
	o.Facts.Version, o.Facts.MTU, o.Facts.Ends = "Linux "+kernelRelease(), nettest.DefaultMTU, betweenPods
	return o, nil
}

// routedAddr returns an address in the subnet of the i-th host.
func routedAddr(i int, last byte) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 97, byte(i + 1), last})
}

// script returns the commands that configure the i-th host.
func (routed) script(l *lab.Lab, i int, pod *nettest.Pod) string {
	var s strings.Builder
	fmt.Fprintf(&s, `sysctl -qw net.ipv4.ip_forward=1
ip link add rpod type veth peer name eth0 netns %[1]s
ip addr add %[2]s/24 dev rpod
ip link set rpod up
ip -n %[1]s addr add %[3]s/24 dev eth0
ip -n %[1]s link set eth0 up
ip -n %[1]s route add default via %[2]s
`, pod.Name(), routedAddr(i, 1), routedAddr(i, 2))
	for j, h := range l.Ends {
		if j != i {
			fmt.Fprintf(&s, "ip route add %s/24 via %s\n", routedAddr(j, 0), h.Addr())
		}
	}
	return s.String()
}
