package vxlan

import (
	"context"
	"sync"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/carrier/framewatch"
)

// watchEntries is the shortest time between two reads of the device's table for an address that is not in it.
const watchEntries = time.Second

// Watch calls f for every frame that the devices send and receive, without the headers of VXLAN; see framewatch.Watch. Several goroutines
// may call f, one at a time.
func (d *Device) Watch(ctx context.Context, f func(framewatch.Watched)) error {
	f = oneAtATime(f)
	return d.eachInterface(ctx, func(ctx context.Context, at framewatch.Interface) error { return framewatch.Watch(ctx, at, f) })
}

// SampleFrames calls f for one of N frames that the devices send and receive; see framewatch.Sample. Several goroutines may call f, one at
// a time.
func (d *Device) SampleFrames(ctx context.Context, every func() int, f func(framewatch.Sampled)) error {
	f = oneAtATime(f)
	return d.eachInterface(ctx, func(ctx context.Context, at framewatch.Interface) error { return framewatch.Sample(ctx, at, every, f) })
}

// oneAtATime returns f for several goroutines.
func oneAtATime[T any](f func(T)) func(T) {
	var mu sync.Mutex
	return func(v T) {
		mu.Lock()
		defer mu.Unlock()
		f(v)
	}
}

// eachInterface calls f for the common device, and at the same time for those of pairs, until ctx ends.
func (d *Device) eachInterface(ctx context.Context, f func(context.Context, framewatch.Interface) error) error {
	ctx, stop := context.WithCancel(ctx)
	var pairs sync.WaitGroup
	pairs.Go(func() {
		for ctx.Err() == nil {
			d.eachPair(ctx, f)
		}
	})
	defer pairs.Wait()
	defer stop()
	return f(ctx, framewatch.Interface{Name: d.cfg.Name, Index: d.index, Ends: &ends{device: d, peers: map[ether.Addr]peer.ID{}}})
}

// eachPair calls f for the devices of pairs, until there are others or ctx ends. An error is none, as the device may be deleted.
func (d *Device) eachPair(ctx context.Context, f func(context.Context, framewatch.Interface) error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	interfaces, changed := d.pairInterfaces()
	var watches sync.WaitGroup
	defer watches.Wait()
	for _, at := range interfaces {
		watches.Go(func() { _ = d.inside(func() error { return f(ctx, at) }) })
	}
	select {
	case <-changed:
		stop()
	case <-ctx.Done():
	}
}

// pairInterfaces returns the devices of pairs as interfaces with frames, and a channel that is closed when there are others.
func (d *Device) pairInterfaces() (list []framewatch.Interface, changed <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.pairs {
		list = append(list, framewatch.Interface{Name: p.name, Index: p.index, Ends: onlyEnd(p.peer.ID)})
	}
	return list, d.changed
}

// linksChanged reports other devices to those that wait for them. mu is held.
func (d *Device) linksChanged() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// onlyEnd is the other end of all frames of a pair.
type onlyEnd peer.ID

// Other implements framewatch.Ends.
func (e onlyEnd) Other(frame []byte, outgoing bool) (id peer.ID, sent, ok bool) {
	return peer.ID(e), outgoing, ether.Type(frame) != probeType
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
