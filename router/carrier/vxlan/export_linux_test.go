package vxlan

import (
	"net/netip"

	"weft/internal/peer"
)

// PairRemote returns where the peer of a pair is reached, not valid before it was heard, and whether there is a pair.
func (d *Device) PairRemote(id peer.ID) (remote netip.AddrPort, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.pairs[id]
	if p == nil {
		return remote, false
	}
	return p.remote, true
}

// CloseGate removes the gate, as on a kernel that has none.
func (d *Device) CloseGate() error {
	d.filterMu.Lock()
	defer d.filterMu.Unlock()
	defer func() { d.gate = nil }()
	return d.gate.close()
}

// PairMoves returns how often the peer of a pair was heard from another address and port than before.
func (d *Device) PairMoves(id peer.ID) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.pairs[id]; p != nil {
		return p.moves
	}
	return 0
}
