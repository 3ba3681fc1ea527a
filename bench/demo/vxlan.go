package demo

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"weft/internal/nettest"
)

// vxlan is the baseline: the kernel's VXLAN between two hosts, each with a bridge and a pod, without tuning.
type vxlan struct {
	pods  []*nettest.Pod
	addrs []netip.Addr
}

// vxlanMTU is the MTU inside VXLAN over IPv4 on an underlay with an MTU of 1,500 bytes.
const vxlanMTU = nettest.DefaultMTU - 50

// newVXLAN builds the baseline with ordinary ip commands.
func newVXLAN(ctx context.Context, a, b *nettest.Host) (*vxlan, error) {
	v := &vxlan{}
	for i, hosts := range [][2]*nettest.Host{{a, b}, {b, a}} {
		host, other := hosts[0], hosts[1]
		pod, err := host.AddPod("vxlan-pod")
		if err != nil {
			return nil, err
		}
		addr := netip.AddrFrom4([4]byte{10, 99, 0, byte(i + 1)})
		script := fmt.Sprintf(`set -e
			ip link add vxbr type bridge
			ip link add vx0 mtu %[1]d type vxlan id 42 dstport 4789 local %[2]s remote %[3]s
			ip link set vx0 master vxbr up
			ip link add vxpod mtu %[1]d master vxbr type veth peer name eth0 netns %[4]s mtu %[1]d
			ip link set vxpod up
			ip link set vxbr mtu %[1]d up
			ip -n %[4]s addr add %[5]s/24 dev eth0
			ip -n %[4]s link set eth0 up`, vxlanMTU, host.Addr(), other.Addr(), pod.Name(), addr)
		if _, err := host.Run(ctx, "sh", "-c", strings.ReplaceAll(script, "\t", "")); err != nil {
			return nil, err
		}
		v.pods, v.addrs = append(v.pods, pod), append(v.addrs, addr)
	}
	return v, nil
}
