package direct

import (
	"fmt"
	"net"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/carrier"
	"weft/tap"
)

// Send implements carrier.Carrier.
func (d *Direct) Send(p carrier.Probe) error {
	d.mu.Lock()
	t, known := d.targets[p.To]
	own, mac := d.own, d.mac
	d.mu.Unlock()
	d.alive.RLock()
	defer d.alive.RUnlock()
	switch {
	case d.closed:
		return net.ErrClosed
	case !known:
		return fmt.Errorf("direct: probe to %s: %w", p.To, carrier.ErrUnknownPeer)
	}
	var frames []tap.Frame
	for _, v := range variants(t.families()) {
		f, err := packet{own.probe(v.family), t.node.probe(v.family), v, p}.frame(mac, d.cfg.MTU)
		if err != nil {
			return err
		}
		frames = append(frames, tap.Frame{Data: f})
	}
	if _, err := d.port.Queues()[0].WriteFrames(frames); err != nil {
		return fmt.Errorf("direct: send a probe: %w", err)
	}
	d.countProbe(p.To, func(c *carrier.Counts) { c.TxFrames, c.TxBytes = c.TxFrames+1, c.TxBytes+d.probeLen() })
	return nil
}

// probeLen returns the length of a packet of a probe as a frame.
func (d *Direct) probeLen() uint64 { return uint64(d.cfg.MTU + ether.HeaderLen) }

// countProbe counts a probe as a frame, in however many packets it was.
func (d *Direct) countProbe(id peer.ID, count func(*carrier.Counts)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.probes[id]
	count(&c)
	d.probes[id] = c
}

// Receive implements carrier.Carrier.
func (d *Direct) Receive() (carrier.Probe, error) {
	for len(d.waiting) == 0 {
		packets, err := d.log.Receive()
		if err != nil {
			return carrier.Probe{}, err
		}
		for _, p := range packets {
			if probe, ok := d.received(p.Data); ok {
				d.waiting = append(d.waiting, probe)
			}
		}
	}
	p := d.waiting[0]
	d.waiting = d.waiting[1:]
	return p, nil
}

// received takes a packet to the address of probes, and returns the probe if it is complete now.
func (d *Direct) received(b []byte) (carrier.Probe, bool) {
	p, err := parsePacket(b)
	if err != nil {
		d.bad.Add(1)
		return carrier.Probe{}, false
	}
	d.mu.Lock()
	t, known := d.targets[p.probe.From]
	if len(d.parts.parts) > 2*len(d.targets) { // of each peer a probe and a reply
		d.parts.keepOnly(func(id peer.ID) bool { _, ok := d.targets[id]; return ok })
	}
	d.mu.Unlock()
	// An address translator between the nodes would have changed the source.
	if !known || p.src != t.node.probe(p.variant.family) {
		d.bad.Add(1)
		return carrier.Probe{}, false
	}
	if !d.parts.add(p, bits(t.families())) {
		return carrier.Probe{}, false
	}
	d.countProbe(t.ID, func(c *carrier.Counts) { c.RxFrames, c.RxBytes = c.RxFrames+1, c.RxBytes+d.probeLen() })
	return p.probe, true
}
