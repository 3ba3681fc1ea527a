package policy

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// class is a set of connections that no rule distinguishes by port: ports first to last of a protocol, both included. The zero
// class is that of protocols without ports.
type class struct {
	protocol    corev1.Protocol
	first, last uint16
}

// protocols are the protocols with ports that policies support.
var protocols = [...]corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}

const maxPort = 65535

// classes divides the ports of each protocol at the first and after the last port of each rule.
func classes(lists ...[]rule) (out []class) {
	cuts := map[corev1.Protocol][]int{}
	for _, rules := range lists {
		for _, r := range rules {
			for _, p := range r.ports {
				cuts[p.protocol] = append(cuts[p.protocol], int(p.first), int(p.last)+1)
			}
		}
	}
	for _, protocol := range protocols {
		at := append(cuts[protocol], 0, maxPort+1)
		slices.Sort(at)
		at = slices.Compact(at)
		for i, first := range at[:len(at)-1] {
			out = append(out, class{protocol: protocol, first: uint16(first), last: uint16(at[i+1] - 1)})
		}
	}
	return out
}
