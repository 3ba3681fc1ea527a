package vxlan

import (
	"context"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/carrier/framewatch"
)

// watchEntries is the shortest time between two reads of the device's table for an address that is not in it.
const watchEntries = time.Second

// Watch calls f for every frame that the device sends and receives, without the headers of VXLAN; see framewatch.Watch.
func (d *Device) Watch(ctx context.Context, f func(framewatch.Watched)) error {
	return framewatch.Watch(ctx, d.watched(), f)
}

// SampleFrames calls f for one of N frames that the device sends and receives; see framewatch.Sample.
func (d *Device) SampleFrames(ctx context.Context, every func() int, f func(framewatch.Sampled)) error {
	return framewatch.Sample(ctx, d.watched(), every, f)
}

// watched is the device as an interface with frames.
func (d *Device) watched() framewatch.Interface {
	return framewatch.Interface{Name: d.cfg.Name, Index: d.index, Ends: &ends{device: d, peers: map[ether.Addr]peer.ID{}}}
}

// ends finds the other ends of frames by the device's table.
type ends struct {
	device *Device
	peers  map[ether.Addr]peer.ID // from the last read of the table
	asked  time.Time              // when it was read
}

// Other implements framewatch.Ends.
func (e *ends) Other(frame []byte, outgoing bool) (id peer.ID, sent, ok bool) {
	if ether.Type(frame) == probeType {
		return id, false, false
	}
	switch mac := ether.Destination(frame); {
	case !outgoing:
		id = e.peerOf(ether.Source(frame))
	case !mac.IsMulticast():
		id = e.peerOf(mac)
	}
	return id, outgoing, true
}

// peerOf returns the peer behind an address, the zero ID if the device does not know it.
func (e *ends) peerOf(mac ether.Addr) peer.ID {
	id, known := e.peers[mac]
	if known || time.Since(e.asked) < watchEntries {
		return id
	}
	e.asked = time.Now()
	entries, err := e.device.Entries()
	if err != nil {
		return peer.ID{}
	}
	clear(e.peers)
	for _, entry := range entries {
		e.peers[entry.MAC] = entry.Peer
	}
	return e.peers[mac]
}
