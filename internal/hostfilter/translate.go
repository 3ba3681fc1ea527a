package hostfilter

import "slices"

// Translated reports whether a rule may change the destination of a packet: whether one is reachable from a base chain of the
// packet's hooks by conditions that the packet may meet. So a port of the host that is published for a container is found,
// whatever tool has published it.
func Translated(rules Ruleset, p Packet) bool {
	for _, c := range rules.Chains {
		if c.Hook != "" && slices.Contains(p.Hooks, c.Hook) && p.passes(c) {
			w := walk{rules: &rules, packet: &p}
			if w.translates(c) {
				return true
			}
		}
	}
	return false
}

// translates reports whether a rule of a chain, or of a chain that it jumps to, may change the packet's destination.
func (w *walk) translates(c *Chain) bool {
	if w.depth++; w.depth > maxDepth {
		return false
	}
	defer func() { w.depth-- }()
	for i := range c.Rules {
		r := &c.Rules[i]
		if w.match(r) == Never {
			continue
		}
		switch r.Action {
		case Translate:
			return true
		case Jump, Goto:
			if target := w.rules.chain(c, r.Target); target != nil && w.translates(target) {
				return true
			}
		case Continue, Accept, Drop, Return:
		}
	}
	return false
}
