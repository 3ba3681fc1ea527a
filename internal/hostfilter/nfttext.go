package hostfilter

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ParseNFT parses the output of "nft list ruleset". It skips everything but chains. Parts of rules that it does not know become
// Unknown conditions.
//
// The text has more than the JSON form: nft translates the extensions of iptables-nft in it, such as "conntrack".
func ParseNFT(text string) Ruleset {
	var rules Ruleset
	var family, table string
	var chain *Chain
	depth := 0 // of braces
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		words := strings.Fields(line)
		opens := strings.HasSuffix(line, "{")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case depth == 0 && opens && len(words) == 4 && words[0] == "table":
			family, table = words[1], words[2]
		case depth == 1 && opens && len(words) == 3 && words[0] == "chain":
			chain = &Chain{Backend: NFT, Family: family, Table: table, Name: words[1]}
			rules.Chains = append(rules.Chains, chain)
		case depth == 2 && chain != nil && len(words) > 3 && words[0] == "type" && words[2] == "hook":
			chain.Hook = words[3]
			chain.Drops = strings.Contains(line, "policy drop;")
		case depth == 2 && chain != nil && line != "}":
			chain.Rules = append(chain.Rules, parseRule(line)...)
		}
		switch {
		case opens:
			depth++
		case line == "}":
			if depth--; depth <= 1 {
				chain = nil
			}
		}
	}
	return rules
}

// parseRule parses one rule. A verdict map becomes a rule for each of its elements.
func parseRule(line string) []Rule {
	p := ruleParser{words: tokens(line), rule: Rule{Action: Continue, Text: line}}
	for len(p.words) > 0 {
		p.statement()
	}
	if p.cases == nil {
		return []Rule{p.rule}
	}
	for i := range p.cases {
		p.cases[i].Text = line
		p.cases[i].Conditions = append(slices.Clone(p.rule.Conditions), p.cases[i].Conditions...)
	}
	return p.cases
}

// tokens splits a rule at spaces and commas, but not inside quotes.
func tokens(line string) (words []string) {
	var word strings.Builder
	quoted := false
	flush := func() {
		if word.Len() > 0 {
			words = append(words, word.String())
			word.Reset()
		}
	}
	for _, c := range line {
		switch {
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ' ' || c == ',' || c == '\t'):
			flush()
			continue
		}
		word.WriteRune(c)
	}
	flush()
	return words
}

// ruleParser takes statements from the front of words.
type ruleParser struct {
	words []string
	rule  Rule
	cases []Rule // of a verdict map; nil: there is none
}

// next removes and returns the first word; empty at the end.
func (p *ruleParser) next() string {
	if len(p.words) == 0 {
		return ""
	}
	word := p.words[0]
	p.words = p.words[1:]
	return strings.Trim(word, `"`)
}

// peek reports whether the next words are the given ones.
func (p *ruleParser) peek(words ...string) bool {
	return len(p.words) >= len(words) && slices.Equal(p.words[:len(words)], words)
}

// skip removes words that belong to a statement without effect on the verdict, with their numbers.
func (p *ruleParser) skip(known ...string) {
	for len(p.words) > 0 && (slices.Contains(known, p.words[0]) || p.words[0][0] == '"' || isNumber(p.words[0])) {
		p.words = p.words[1:]
	}
}

func isNumber(s string) bool { _, err := strconv.ParseUint(s, 0, 64); return err == nil }

// statement parses one statement.
func (p *ruleParser) statement() {
	switch word := p.next(); word {
	case "counter":
		p.skip("packets", "bytes", "name")
	case "log":
		p.skip("prefix", "level", "group", "snaplen", "queue-threshold", "flags", "all", "tcp", "sequence", "options", "ip", "ether",
			"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit")
	case "comment":
		p.next()
	case "accept":
		p.rule.Action = Accept
	case "drop", "reject":
		p.rule.Action = Drop
		p.words = nil // "with icmpx admin-prohibited", and a comment
	case "return":
		p.rule.Action = Return
	case "jump", "goto":
		p.rule.Action, p.rule.Target = Jump, p.next()
		if word == "goto" {
			p.rule.Action = Goto
		}
	case "dnat", "redirect":
		p.rule.Action = Translate
		p.words = nil
	case "snat", "masquerade":
		p.rule.Action = Accept
		p.words = nil
	default:
		p.condition(word)
	}
}

// condition parses a condition that begins with word.
func (p *ruleParser) condition(word string) {
	switch word {
	case "iif", "iifname":
		p.compare(func(v []string) Condition { return In(v) })
	case "oif", "oifname":
		p.compare(func(v []string) Condition { return Out(v) })
	case "ct", "meta", "ip", "ip6", "tcp", "udp", "th", "fib":
		p.pair(word, p.next())
	case "icmp", "icmpv6":
		p.next()
		p.operand()
		p.add(Protocol{word})
	default:
		p.add(Unknown{})
	}
}

// pair parses a condition that begins with two words.
func (p *ruleParser) pair(first, second string) {
	switch first + " " + second {
	case "ct state":
		p.compare(func(v []string) Condition { return State(v) })
	case "ct status":
		p.compare(func(v []string) Condition {
			if slices.Equal(v, []string{"dnat"}) {
				return Mapped{}
			}
			return Unknown{}
		})
	case "meta l4proto", "ip protocol", "ip6 nexthdr":
		p.compare(func(v []string) Condition { return Protocol(v) })
	case "meta nfproto":
		p.compare(func(v []string) Condition {
			if len(v) == 1 && v[0] == "ipv6" {
				return Family(IPv6)
			}
			return Family(IPv4)
		})
	case "ip saddr", "ip6 saddr":
		p.add(Family(first))
		p.compare(func(v []string) Condition { return addresses(v, func(l []netip.Prefix) Condition { return Src(l) }) })
	case "ip daddr", "ip6 daddr":
		p.add(Family(first))
		p.compare(func(v []string) Condition { return addresses(v, func(l []netip.Prefix) Condition { return Dst(l) }) })
	case "tcp dport", "udp dport":
		p.add(Protocol{first})
		p.compare(dstPorts)
	case "th dport":
		p.compare(dstPorts)
	case "tcp sport", "udp sport":
		p.add(Protocol{first})
		p.compare(srcPorts)
	case "fib daddr":
		p.next() // type
		p.compare(destinationType)
	case "tcp flags":
		p.add(Protocol{first})
		p.operand()
		p.add(Unknown{})
	case "fib saddr":
		p.concatenation()
	default:
		if p.peek(".") {
			p.concatenation()
			return
		}
		p.operand()
		p.add(Unknown{})
	}
}

// destinationType is a condition about the kind of a destination.
func destinationType(v []string) Condition {
	if len(v) == 1 {
		switch v[0] {
		case "local":
			return DstLocal{}
		case "broadcast", "multicast", "anycast":
			return Group{}
		}
	}
	return Unknown{}
}

// addresses returns a condition about prefixes, or Unknown for a named set.
func addresses(texts []string, condition func([]netip.Prefix) Condition) Condition {
	var list []netip.Prefix
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(text)
		if addr, e := netip.ParseAddr(text); e == nil {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return Unknown{}
		}
		list = append(list, prefix)
	}
	return condition(list)
}

func dstPorts(texts []string) Condition {
	if list := ports(texts); list != nil {
		return DstPort(list)
	}
	return Unknown{}
}

func srcPorts(texts []string) Condition {
	if list := ports(texts); list != nil {
		return SrcPort(list)
	}
	return Unknown{}
}

// ports parses ports and ranges; nil for a named set.
func ports(texts []string) (list []PortRange) {
	for _, text := range texts {
		from, to, isRange := strings.Cut(text, "-")
		if !isRange {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		if err != nil || err2 != nil {
			return nil
		}
		list = append(list, PortRange{uint16(first), uint16(last)})
	}
	return list
}

func (p *ruleParser) add(c Condition) { p.rule.Conditions = append(p.rule.Conditions, c) }

// compare parses an operator and values, and adds the condition that make returns for them; for a verdict map, a case for each
// element.
func (p *ruleParser) compare(makeCondition func(values []string) Condition) {
	if p.peek(".") {
		p.concatenation()
		return
	}
	if p.peek("vmap") {
		p.next()
		p.verdictMap(makeCondition)
		return
	}
	negated, values := p.operand()
	c := Condition(Unknown{})
	if len(values) > 0 && !strings.ContainsAny(values[0], "@&<>") {
		c = makeCondition(values)
	}
	if negated {
		c = Not{c}
	}
	p.add(c)
}

// verdicts are the words at which a concatenation ends.
var verdicts = []string{"accept", "drop", "reject", "return", "jump", "goto", "counter", "log", "dnat", "redirect", "vmap"}

// concatenation skips a condition about several fields at once, such as "iifname . oifname { … }", which is Unknown.
func (p *ruleParser) concatenation() {
	p.add(Unknown{})
	for len(p.words) > 0 && !slices.Contains(verdicts, p.words[0]) {
		p.words = p.words[1:]
	}
	if p.peek("vmap") {
		p.next()
		p.verdictMap(func([]string) Condition { return Unknown{} })
	}
}

// operand takes an operator and a value, a list or a set. Lists and sets have the values as elements.
func (p *ruleParser) operand() (negated bool, values []string) {
	for p.peek("!=") || p.peek("==") || p.peek("!") {
		negated = p.next() != "=="
	}
	if p.peek("vmap") {
		p.next()
	}
	if !p.peek("{") {
		values = []string{p.next()}
		for p.list(values[0]) { // "established,related" is split at the comma
			values = append(values, p.next())
		}
		return negated, values
	}
	p.next()
	for len(p.words) > 0 && !p.peek("}") {
		values = append(values, p.next())
	}
	p.next()
	return negated, values
}

// states are the values that stand in lists without braces.
var states = []string{"established", "related", "new", "invalid", "untracked"}

// list reports whether the next word belongs to the list that first began.
func (p *ruleParser) list(first string) bool {
	return len(p.words) > 0 && slices.Contains(states, first) && slices.Contains(states, p.words[0])
}

// verdictMap parses "{ VALUE : VERDICT, … }" or the name of a map.
func (p *ruleParser) verdictMap(makeCondition func(values []string) Condition) {
	if !p.peek("{") {
		p.next()
		p.cases = []Rule{{Conditions: []Condition{Unknown{}}, Action: Accept}, {Conditions: []Condition{Unknown{}}, Action: Drop}}
		return
	}
	p.next()
	p.cases = []Rule{}
	for len(p.words) > 0 && !p.peek("}") {
		value := p.next()
		for len(p.words) > 0 && !p.peek(":") { // a concatenation
			p.next()
		}
		p.next()
		c := ruleParser{words: p.words, rule: Rule{Action: Continue}}
		c.statement()
		p.words = c.words
		c.rule.Conditions = []Condition{makeCondition([]string{value})}
		p.cases = append(p.cases, c.rule)
	}
	p.next()
}
