package driver

import (
	"context"
	"net/netip"

	"weft/bench/lab"
)

// wireguardVXLAN is VXLAN by hand in wireguard-go, which is what weft makes of both.
type wireguardVXLAN struct{ wireguard }

// Name implements Driver.
func (*wireguardVXLAN) Name() string { return "wireguard-vxlan" }

// Summary implements Driver.
func (*wireguardVXLAN) Summary() string {
	return "the kernel's VXLAN by hand in wireguard-go, from pod to pod: the base of weft-wireguard"
}

// Up implements Driver.
func (w *wireguardVXLAN) Up(ctx context.Context, l *lab.Lab) (*Overlay, error) {
	o := &Overlay{}
	inside := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 98, 0, byte(i + 1)}) }
	err := w.connect(ctx, o, l, inside)
	if err == nil {
		err = vxlan{}.connect(ctx, o, l, inside, wireguardMTU-50)
	}
	o.Facts.Version, o.Facts.MTU, o.Facts.Ends = wireguardVersion, wireguardMTU-50, betweenPods
	o.Facts.Encrypted, o.Facts.Cipher = true, "chacha20-poly1305"
	return o, err
}
