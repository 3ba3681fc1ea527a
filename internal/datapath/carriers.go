package datapath

import (
	"context"
	"errors"
	"fmt"

	"weft/internal/settings"
	"weft/router/carrier"
	"weft/router/carrier/direct"
	"weft/router/carrier/vxlan"
	"weft/router/carrier/wireguard"
)

// carrierKind is what the node says about a kind of carrier of the kernel, and how it removes what an earlier run has left of one.
type carrierKind struct {
	kind    carrier.Kind
	rules   string                        // its rules of nftables, as a part of a sentence
	missing string                        // what holds without it
	blocked string                        // the same to some peers, as a part of a sentence before their names
	instead string                        // what carries the frames to them
	open    func(*settings.Config) string // what to do about that
	without string                        // flags with which a node does not use it
	remove  func(context.Context, *settings.Config) error
}

// carrierKinds are all kinds. Those that come first carry what they can, and leave the rest to the others.
var carrierKinds = []carrierKind{{
	kind: carrier.Direct, rules: "the rules of direct routing", missing: "There is no direct routing",
	blocked: "Direct routing to", instead: "packets to them go by VXLAN or userspace",
	open: func(*settings.Config) string {
		return "Let networks and firewalls between the nodes pass packets with the addresses of pods (source checks of clouds drop them), look " +
			"for conditions of the other nodes"
	},
	without: "--direct-routing off",
	remove:  func(ctx context.Context, _ *settings.Config) error { return direct.Remove(ctx) },
}, {
	kind: carrier.VXLAN, rules: "the rules that filter senders of VXLAN",
	missing: "There is no kernel path, all peers are carried in userspace",
	blocked: "The kernel path to", instead: "frames to them go through userspace",
	open:    func(s *settings.Config) string { return openUDP(s.KernelPort()) },
	without: "--datapath userspace",
	remove:  func(ctx context.Context, s *settings.Config) error { return removeVXLAN(ctx, s.KernelDevice()) },
}, {
	kind: carrier.WireGuard, rules: "the rules that filter senders of VXLAN in tunnels",
	missing: "There is no kernel path by WireGuard, all peers are carried in userspace",
	blocked: "The kernel path by WireGuard to", instead: "frames to them go through userspace",
	open:    func(s *settings.Config) string { return openUDP(s.TunnelPort()) },
	without: "--carriers vxlan",
	remove: func(ctx context.Context, s *settings.Config) error {
		return errors.Join(removeVXLAN(ctx, s.TunneledDevice()), wireguard.RemoveOthers(""))
	},
}}

// infoOf returns the entry of a kind.
func infoOf(kind carrier.Kind) *carrierKind {
	for i := range carrierKinds {
		if carrierKinds[i].kind == kind {
			return &carrierKinds[i]
		}
	}
	panic("datapath: no carrier of the kernel: " + kind)
}

func openUDP(port uint16) string { return fmt.Sprintf("Open UDP port %d in both directions", port) }

// removeVXLAN removes a VXLAN device that an earlier run has left.
func removeVXLAN(ctx context.Context, name string) error {
	_, err := vxlan.Remove(ctx, name)
	if errors.Is(err, vxlan.ErrNotOurs) {
		return nil
	}
	return err
}
