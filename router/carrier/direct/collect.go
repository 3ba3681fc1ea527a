package direct

import (
	"weft/internal/peer"
	"weft/router/carrier"
)

// collector puts the packets of probes together. It is not safe for concurrent use.
type collector struct{ parts map[origin]part }

// origin is what sends probes of which one is collected at a time: a peer, and its replies apart from its other probes.
type origin struct {
	from  peer.ID
	reply bool
}

// part is a probe of which some packets have arrived.
type part struct {
	probe carrier.Probe
	have  uint8 // the bits of their variants
}

// add takes a packet of a probe, and reports whether all that want has have arrived now. With the first packet of another probe of the same
// origin, the one before is given up.
func (c *collector) add(p packet, want uint8) bool {
	key := origin{p.probe.From, p.probe.Reply}
	now := c.parts[key]
	if now.probe != p.probe {
		now = part{probe: p.probe}
	}
	now.have |= p.variant.bit()
	if now.have&want == want {
		delete(c.parts, key)
		return true
	}
	if c.parts == nil {
		c.parts = map[origin]part{}
	}
	c.parts[key] = now
	return false
}

// keepOnly forgets what came from other peers.
func (c *collector) keepOnly(known func(peer.ID) bool) {
	for key := range c.parts {
		if !known(key.from) {
			delete(c.parts, key)
		}
	}
}
