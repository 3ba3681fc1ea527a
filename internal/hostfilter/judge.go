package hostfilter

import (
	"fmt"
	"slices"
)

// Verdict is the fate of a packet. The zero Verdict is invalid.
type Verdict uint8

// Verdicts.
const (
	Passes  Verdict = iota + 1 // unless a rule with a condition selects it
	Unclear                    // dropped, unless a rule with a condition that is not known accepts it
	Drops
)

// Result is the fate of a packet, and what decides it.
type Result struct {
	Verdict Verdict
	Chain   *Chain // that drops; nil if the packet passes
	Rule    *Rule  // that drops; nil: the policy of the chain
}

// String describes what drops the packet.
func (r Result) String() string {
	switch {
	case r.Chain == nil:
		return "no rule drops it"
	case r.Rule == nil:
		return fmt.Sprintf("%s drops by default", r.Chain)
	}
	return fmt.Sprintf("the rule %q in %s", r.Rule.Text, r.Chain)
}

// Judge follows a packet through all base chains of its hooks. The result is the worst of them: a packet that one chain drops is
// lost, whatever others accept.
func Judge(rules Ruleset, p Packet) Result {
	worst := Result{Verdict: Passes}
	for _, c := range rules.Chains {
		if c.Hook == "" || !p.passes(c) {
			continue
		}
		w := walk{rules: &rules, packet: &p}
		if r := w.base(c); r.Verdict > worst.Verdict {
			worst = r
		}
	}
	return worst
}

// passes reports whether the packet passes a base chain.
func (p *Packet) passes(c *Chain) bool {
	if c.Family == Bridge {
		return slices.Contains(p.FrameHooks, c.Hook)
	}
	return (c.Family == Inet || c.Family == p.Family) && slices.Contains(p.Hooks, c.Hook)
}

// maxDepth is the number of nested jumps that the kernel allows (NFT_JUMP_STACK_SIZE).
const maxDepth = 16

// walk is one evaluation of a base chain.
type walk struct {
	rules     *Ruleset
	packet    *Packet
	depth     int
	mayEscape bool   // a rule that may match accepts the packet, or leads it around later rules
	found     Result // what drops the packet; the zero Result: nothing
}

// outcome is how the walk through a chain ends. The zero outcome is invalid.
type outcome uint8

const (
	fellThrough outcome = iota + 1 // the end of the chain, or return
	accepted
	dropped
)

// base evaluates a base chain.
func (w *walk) base(c *Chain) Result {
	end := w.chain(c, false)
	if end == fellThrough && c.Drops {
		end, w.found = dropped, Result{Chain: c}
	}
	switch {
	case end != dropped:
		return Result{Verdict: Passes}
	case w.mayEscape:
		w.found.Verdict = Unclear
	default:
		w.found.Verdict = Drops
	}
	return w.found
}

// chain evaluates the rules of a chain. In doubt: it is not certain that the packet comes here, so nothing in it is final.
func (w *walk) chain(c *Chain, doubt bool) outcome {
	if w.depth++; w.depth > maxDepth {
		return fellThrough
	}
	defer func() { w.depth-- }()
	for i := range c.Rules {
		r := &c.Rules[i]
		m := w.match(r)
		if m == Never {
			continue
		}
		sure := m == Always && !doubt
		end, ends := w.apply(c, r, sure)
		switch {
		case ends && sure:
			return end
		case ends && m == Always:
			return fellThrough // within the doubt, nothing follows
		case ends && end == fellThrough:
			w.mayEscape = true
		}
	}
	return fellThrough
}

// apply performs the action of a rule that matches, or may match. ends reports whether the chain ends for the packets that match.
func (w *walk) apply(c *Chain, r *Rule, sure bool) (end outcome, ends bool) {
	switch r.Action {
	case Accept, Translate:
		w.mayEscape = w.mayEscape || !sure
		return accepted, true
	case Drop:
		if sure {
			w.found = Result{Chain: c, Rule: r}
		}
		return dropped, true
	case Return:
		return fellThrough, true
	case Jump, Goto:
		target := w.rules.chain(c, r.Target)
		if target == nil {
			return 0, false
		}
		end = w.chain(target, !sure)
		return end, end != fellThrough || r.Action == Goto
	case Continue:
	}
	return 0, false
}

// match reports whether a packet meets all conditions of a rule.
func (w *walk) match(r *Rule) Match { return all(r.Conditions).match(w.packet) }
