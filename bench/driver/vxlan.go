package driver

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"

	"weft/bench/lab"
	"weft/internal/nettest"
)

// vxlan is the kernel's VXLAN between bridges with a pod on each: the same path as between weft's pods, without a daemon.
type vxlan struct{}

// vxlanMTU is the MTU inside VXLAN over IPv4.
const vxlanMTU = nettest.DefaultMTU - 50

// Name implements Driver.
func (vxlan) Name() string { return Base }

// Summary implements Driver.
func (vxlan) Summary() string {
	return "the kernel's VXLAN from pod to pod, static FDB: the base of all ratios"
}

// Prepare implements Driver.
func (vxlan) Prepare(context.Context, *Tools) error { return nil }

// Up implements Driver.
func (v vxlan) Up(ctx context.Context, l *lab.Lab) (*Overlay, error) {
	o := &Overlay{}
	if err := v.connect(ctx, o, l, func(i int) netip.Addr { return l.Ends[i].Addr() }, vxlanMTU); err != nil {
		return o, err
	}
	shown, err := l.Ends[0].Run(ctx, "ip", "-d", "link", "show", "vx0")
	if err != nil {
		return o, err
	}
	o.Facts.Version = "Linux " + kernelRelease()
	o.Facts.MTU, o.Facts.Ends = vxlanMTU, betweenPods
	o.Facts.Tuned = []string{
		"static FDB and neighbors' MACs, no learning on the tunnel", "outer checksum by the kernel's default: " + checksumFlag(shown),
	}
	return o, nil
}

// connect gives each host a pod that VXLAN connects to the others over an underlay with the given addresses of the hosts.
func (v vxlan) connect(ctx context.Context, o *Overlay, l *lab.Lab, addr func(i int) netip.Addr, mtu int) error {
	for i, h := range l.Ends {
		pod, err := h.AddPod("pod")
		if err != nil {
			return err
		}
		if out, err := h.Run(ctx, "sh", "-ec", v.script(l, i, pod, addr, mtu)); err != nil {
			if strings.Contains(out, "Unknown device type") || strings.Contains(out, "not supported") {
				err = fmt.Errorf("%w: %w", ErrUnavailable, err)
			}
			return err
		}
		o.Ends = append(o.Ends, lab.End{Space: pod.Space, Addr: podAddr(i)})
	}
	return nil
}

// script returns the ip and bridge commands that configure the i-th host.
func (vxlan) script(l *lab.Lab, i int, pod *nettest.Pod, addr func(i int) netip.Addr, mtu int) string {
	var s strings.Builder
	fmt.Fprintf(&s, `ip link add vxbr type bridge mcast_snooping 0
ip link add vx0 mtu %[1]d type vxlan id 42 dstport 4789 local %[2]s nolearning
ip link set vx0 master vxbr up
ip link add vxpod mtu %[1]d master vxbr type veth peer name eth0 address %[3]s netns %[4]s mtu %[1]d
ip link set vxpod up
ip link set vxbr mtu %[1]d up
ip -n %[4]s addr add %[5]s/24 dev eth0
ip -n %[4]s link set eth0 up
`, mtu, addr(i), podMAC(i), pod.Name(), podAddr(i))
	for j := range l.Ends {
		if j != i {
			fmt.Fprintf(&s, "bridge fdb append 00:00:00:00:00:00 dev vx0 dst %[2]s\nbridge fdb add %[1]s dev vx0 dst %[2]s\n",
				podMAC(j), addr(j))
		}
	}
	return s.String()
}

func podMAC(i int) string { return fmt.Sprintf("02:00:00:00:77:%02x", i+1) }

func podAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 99, 0, byte(i + 1)}) }

var flag = regexp.MustCompile(`\b(no)?udpcsum\b`)

// checksumFlag returns the flag for the outer UDP checksum in the output of "ip -d link".
func checksumFlag(shown string) string {
	if f := flag.FindString(shown); f != "" {
		return f
	}
	return "not shown"
}

// kernelRelease returns the running kernel's version.
func kernelRelease() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}
