package hostfilter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// The kernel returns a table of iptables-legacy as entries one behind the other, each with conditions ("matches") and a target
// (linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h, linux/netfilter/x_tables.h):
//
//	ipt_entry  ipt_ip | cache 4 | target_offset 2 | next_offset 2 | comefrom 4 | counters 16 | matches … | target
//	match      size 2 | name 29 | revision 1 | data …
//	target     size 2 | name 29 | revision 1 | data …        standard target: data is a verdict of 4 bytes
//
// A standard verdict is the offset of an entry to jump to, or negative. Chains that are no base chains begin behind an entry with
// the target ERROR, which has their name.

// errTruncated is the error for entries that do not fit their table.
var errTruncated = errors.New("hostfilter: a table of iptables is truncated")

// numHooks is the number of hooks of an IP family; hookNames has their order.
const numHooks = 5

var hookNames = [numHooks]string{"prerouting", "input", "forward", "output", "postrouting"}

// legacyTable is a table as the kernel returns it.
type legacyTable struct {
	family     string // IPv4 or IPv6
	name       string
	validHooks uint32
	hookEntry  [numHooks]uint32 // offset of the first rule of a base chain
	underflow  [numHooks]uint32 // offset of its policy
	entries    []byte
}

// layout is where the fields of an entry are.
type layout struct {
	addrLen, flags, targetOffset, elements int
	jumpOnly                               byte // flag of a jump without return
}

var layouts = map[string]layout{
	IPv4: {addrLen: 4, flags: 82, targetOffset: 88, elements: 112, jumpOnly: 0x02},
	IPv6: {addrLen: 16, flags: 131, targetOffset: 140, elements: 168, jumpOnly: 0x04},
}

// Lengths of fields of all layouts.
const (
	ifnameLen    = 16
	extensionLen = 32 // header of matches and targets
	nameOffset   = 2
	nameLen      = 29
)

// entry is one entry of a table.
type entry struct {
	table  *legacyTable
	layout layout
	offset uint32
	data   []byte
}

// chains returns the chains of a table.
func (t *legacyTable) chains() ([]*Chain, error) {
	list, err := t.split()
	if err != nil {
		return nil, err
	}
	names := t.names(list)
	var chains []*Chain
	var current *Chain
	var policy uint32
	for i := range list {
		e := &list[i]
		if hook, base := t.hookAt(e.offset); base {
			current = &Chain{Backend: Legacy, Family: t.family, Table: t.name, Name: strings.ToUpper(hookNames[hook]), Hook: hookNames[hook]}
			chains, policy = append(chains, current), t.underflow[hook]
		}
		name, verdict := e.target()
		switch {
		case name == "ERROR":
			current = &Chain{Backend: Legacy, Family: t.family, Table: t.name, Name: names[e.next()]}
			chains = append(chains, current)
		case current == nil:
		case current.Hook != "" && e.offset == policy:
			current.Drops = verdict == verdictDrop
			current = nil
		default:
			current.Rules = append(current.Rules, e.rule(current.Name, names))
		}
	}
	return chains, nil
}

// split returns the entries of a table.
func (t *legacyTable) split() (list []entry, err error) {
	l := layouts[t.family]
	for offset := 0; offset < len(t.entries); {
		rest := t.entries[offset:]
		if len(rest) < l.elements {
			return nil, errTruncated
		}
		target, next := int(binary.NativeEndian.Uint16(rest[l.targetOffset:])), int(binary.NativeEndian.Uint16(rest[l.targetOffset+2:]))
		if target < l.elements || next < target+extensionLen || next > len(rest) {
			return nil, errTruncated
		}
		list = append(list, entry{t, l, uint32(offset), rest[:next]})
		offset += next
	}
	return list, nil
}

// names returns the names of chains by the offset of their first rule.
func (t *legacyTable) names(list []entry) map[uint32]string {
	names := map[uint32]string{}
	for _, e := range list {
		if name, _ := e.target(); name == "ERROR" {
			data := e.data[e.targetAt()+extensionLen:]
			names[e.next()] = text(data)
		}
	}
	return names
}

func (t *legacyTable) hookAt(offset uint32) (hook int, ok bool) {
	for h := range numHooks {
		if t.validHooks&(1<<h) != 0 && t.hookEntry[h] == offset {
			return h, true
		}
	}
	return 0, false
}

// text returns the bytes up to a zero as text.
func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

func (e *entry) next() uint32 { return e.offset + uint32(len(e.data)) }

func (e *entry) targetAt() int {
	return int(binary.NativeEndian.Uint16(e.data[e.layout.targetOffset:]))
}

// Verdicts of standard targets.
const (
	verdictDrop   = -1
	verdictAccept = -2
	verdictReturn = -5
)

// target returns the name of the entry's target, and the verdict of a standard target, which has an empty name.
func (e *entry) target() (name string, verdict int32) {
	t := e.data[e.targetAt():]
	name = text(t[nameOffset : nameOffset+nameLen])
	if name == "" && len(t) >= extensionLen+4 {
		verdict = int32(binary.NativeEndian.Uint32(t[extensionLen:])) //nolint:gosec // it is signed
	}
	return name, verdict
}

// rule returns the entry as a rule of the chain called chain.
func (e *entry) rule(chain string, chains map[uint32]string) Rule {
	r := Rule{}
	words := []string{"-A", chain}
	add := func(c Condition, text ...string) {
		r.Conditions, words = append(r.Conditions, c), append(words, text...)
	}
	e.addresses(add)
	e.interfaces(add)
	e.protocol(add)
	e.matches(add)
	name, verdict := e.target()
	r.Action, r.Target = action(name, verdict, chains)
	if r.Action == Jump && e.data[e.layout.flags]&e.layout.jumpOnly != 0 {
		r.Action = Goto
	}
	switch {
	case r.Action == Goto:
		words = append(words, "-g", r.Target)
	case name == "":
		words = append(words, "-j", map[Action]string{Accept: "ACCEPT", Drop: "DROP", Return: "RETURN", Jump: r.Target}[r.Action])
	default:
		words = append(words, "-j", name)
	}
	r.Text = strings.Join(words, " ")
	return r
}

// action returns the action of a target.
func action(name string, verdict int32, chains map[uint32]string) (Action, string) {
	switch {
	case name == "REJECT":
		return Drop, ""
	case name == "DNAT" || name == "REDIRECT":
		return Translate, ""
	case name == "SNAT" || name == "MASQUERADE":
		return Accept, ""
	case name != "":
		return Continue, ""
	case verdict >= 0:
		return Jump, chains[uint32(verdict)]
	case verdict == verdictDrop:
		return Drop, ""
	case verdict == verdictReturn:
		return Return, ""
	}
	return Accept, ""
}

// Flags of an entry that invert conditions.
const (
	invertIn  = 0x01
	invertOut = 0x02
	invertSrc = 0x08
	invertDst = 0x10
	invertL4  = 0x40
)

func (e *entry) inverted(bit byte) bool { return e.data[e.layout.flags+1]&bit != 0 }

// negate returns the condition and its text, negated if the entry inverts it.
func (e *entry) negate(bit byte, c Condition, words ...string) (Condition, []string) {
	if e.inverted(bit) {
		return Not{c}, append([]string{"!"}, words...)
	}
	return c, words
}

func (e *entry) addresses(add func(Condition, ...string)) {
	n := e.layout.addrLen
	for i, bit := range []byte{invertSrc, invertDst} {
		addr, _ := netip.AddrFromSlice(e.data[i*n : (i+1)*n])
		ones := 0
		for _, b := range e.data[(2+i)*n : (3+i)*n] {
			for ; b&0x80 != 0; b <<= 1 {
				ones++
			}
		}
		prefix := netip.PrefixFrom(addr, ones)
		if ones == 0 {
			continue
		}
		c, word := Condition(Src{prefix}), "-s"
		if bit == invertDst {
			c, word = Dst{prefix}, "-d"
		}
		c, words := e.negate(bit, c, word, prefix.String())
		add(c, words...)
	}
}

func (e *entry) interfaces(add func(Condition, ...string)) {
	base := 4 * e.layout.addrLen
	for i, bit := range []byte{invertIn, invertOut} {
		name := text(e.data[base+i*ifnameLen : base+(i+1)*ifnameLen])
		mask := e.data[base+(2+i)*ifnameLen : base+(3+i)*ifnameLen]
		if name == "" {
			continue
		}
		if n := bytes.IndexByte(mask, 0); n >= 0 && n <= len(name) { // the mask of an exact name includes the zero behind it
			name = name[:n] + "+"
		}
		c, word := Condition(In{name}), "-i"
		if bit == invertOut {
			c, word = Out{name}, "-o"
		}
		c, words := e.negate(bit, c, word, name)
		add(c, words...)
	}
}

// protocols are the names of transport protocols by number.
var protocols = map[uint16]string{1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}

func (e *entry) protocol(add func(Condition, ...string)) {
	number := binary.NativeEndian.Uint16(e.data[4*e.layout.addrLen+4*ifnameLen:])
	if number == 0 {
		return
	}
	name, known := protocols[number]
	if !known {
		name = fmt.Sprint(number)
	}
	c, words := e.negate(invertL4, Protocol{name}, "-p", name)
	add(c, words...)
}

// matches adds the conditions of extensions.
func (e *entry) matches(add func(Condition, ...string)) {
	for rest := e.data[e.layout.elements:e.targetAt()]; len(rest) >= extensionLen; {
		size := int(binary.NativeEndian.Uint16(rest))
		if size < extensionLen || size > len(rest) {
			add(Unknown{})
			return
		}
		name, revision, data := text(rest[nameOffset:nameOffset+nameLen]), rest[extensionLen-1], rest[extensionLen:size]
		if name != "comment" {
			c, words := extension(name, revision, data)
			add(c, append([]string{"-m", name}, words...)...)
		}
		rest = rest[size:]
	}
}
