package filter

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"

	"weft/internal/ether"
	"weft/internal/packet"
)

// ErrSyntax is wrapped by Parse's errors, which name the word that is wrong and what is expected in its place.
var ErrSyntax = errors.New("not a filter")

const (
	// maxLength bounds an expression in bytes, and thereby the depth of its parentheses.
	maxLength = 4096
	// maxVLAN, maxPort and maxFrame bound the numbers in conditions.
	maxVLAN  = 4095
	maxPort  = 65535
	maxFrame = 1 << 20
)

// Parse returns the filter for an expression. An empty expression matches all frames. Errors wrap ErrSyntax.
func Parse(expression string) (*Filter, error) {
	if len(expression) > maxLength {
		return nil, fmt.Errorf("filter: %w: it is longer than %d bytes", ErrSyntax, maxLength)
	}
	p := parser{words: split(expression)}
	if len(p.words) == 0 {
		return &Filter{}, nil
	}
	matches, err := p.expression()
	if err == nil && p.word() != "" {
		err = p.unexpected("and, or, or the end")
	}
	if err != nil {
		return nil, fmt.Errorf("filter: %w: %w", ErrSyntax, err)
	}
	return &Filter{matches}, nil
}

// split returns the words of an expression. Parentheses, "!", "&&" and "||" are words also without spaces around them.
func split(expression string) []string {
	for _, sign := range []string{"(", ")", "!", "&&", "||"} {
		expression = strings.ReplaceAll(expression, sign, " "+sign+" ")
	}
	return strings.FieldsFunc(expression, unicode.IsSpace)
}

// parser is a parser by recursive descent. Its methods consume words; those that return a predicate return nil and an error
// when they fail.
type parser struct {
	words  []string
	at     int         // index of the next word
	latest *qualifiers // of the latest condition about an address or port; nil before the first
}

// qualifiers are the words before an address or a port. They apply also to a following one without any: "src host A or B".
type qualifiers struct {
	protocol predicate // nil: any
	direction
	what string // host, net, port, portrange; empty: host or net
}

// word returns the next word, "" at the end.
func (p *parser) word() string {
	if p.at == len(p.words) {
		return ""
	}
	return p.words[p.at]
}

// accept consumes the next word if it is one of words.
func (p *parser) accept(words ...string) (word string, ok bool) {
	for _, w := range words {
		if p.word() == w {
			p.at++
			return w, true
		}
	}
	return "", false
}

// unexpected returns the error about the next word.
func (p *parser) unexpected(wanted string) error {
	if p.word() == "" {
		return fmt.Errorf("it ends where %s should be", wanted)
	}
	return fmt.Errorf("%q (word %d) stands where %s should be", p.word(), p.at+1, wanted)
}

// expression parses terms joined by "or" and "and". As in tcpdump both have the same precedence and associate to the left.
// "and" may be omitted.
func (p *parser) expression() (predicate, error) {
	left, err := p.term()
	for err == nil {
		word, explicit := p.accept("or", "||", "and", "&&")
		or := word == "or" || word == "||"
		if next := p.word(); !explicit && (next == "" || next == ")") {
			return left, nil
		}
		first := left
		var second predicate
		second, err = p.term()
		if or {
			left = func(v fields) bool { return first(v) || second(v) }
		} else {
			left = func(v fields) bool { return first(v) && second(v) }
		}
	}
	return nil, err
}

// term parses a condition, a negated term, or an expression in parentheses.
func (p *parser) term() (predicate, error) {
	if _, ok := p.accept("not", "!"); ok {
		inner, err := p.term()
		return func(v fields) bool { return !inner(v) }, err
	}
	if _, ok := p.accept("("); ok {
		inner, err := p.expression()
		if _, closed := p.accept(")"); err == nil && !closed {
			return nil, p.unexpected(")")
		}
		return inner, err
	}
	return p.condition()
}

// protocols are the words that are conditions themselves, and may precede host, net and port.
var protocols = map[string]predicate{
	"arp": hasEtherType(ether.TypeARP), "ip": hasEtherType(ether.TypeIPv4), "ip6": hasEtherType(ether.TypeIPv6),
	"icmp": hasProtocolIn(ether.TypeIPv4, packet.ICMP), "icmp6": hasProtocolIn(ether.TypeIPv6, packet.ICMPv6),
	"tcp": hasProtocol(packet.TCP), "udp": hasProtocol(packet.UDP), "sctp": hasProtocol(packet.SCTP),
}

func hasEtherType(etherType uint16) predicate {
	return func(v fields) bool { return v.etherType == etherType }
}

func hasProtocol(proto packet.Protocol) predicate {
	return func(v fields) bool { return v.proto == int(proto) }
}

// hasProtocolIn matches a protocol of one version of IP only.
func hasProtocolIn(etherType uint16, proto packet.Protocol) predicate {
	return func(v fields) bool { return v.etherType == etherType && v.proto == int(proto) }
}

// condition parses a condition without and, or and not.
func (p *parser) condition() (predicate, error) {
	word := p.word()
	if protocol, ok := protocols[word]; ok {
		p.at++
		return p.afterProtocol(protocol)
	}
	switch word {
	case "ether":
		p.at++
		return p.afterEther()
	case "broadcast":
		p.at++
		return func(v fields) bool {
			return len(v.frame) >= ether.HeaderLen && ether.Destination(v.frame) == ether.Broadcast
		}, nil
	case "multicast":
		p.at++
		return func(v fields) bool {
			return len(v.frame) >= ether.HeaderLen && ether.Destination(v.frame).IsMulticast()
		}, nil
	case "vlan":
		p.at++
		return p.afterVLAN()
	case "less", "greater":
		p.at++
		n, err := p.number(maxFrame)
		if word == "less" {
			return func(v fields) bool { return v.length <= n }, err
		}
		return func(v fields) bool { return v.length >= n }, err
	}
	return p.addressOrPort(nil)
}

// afterProtocol parses the rest of a condition that begins with a protocol: an address or port, or nothing.
func (p *parser) afterProtocol(protocol predicate) (predicate, error) {
	switch p.word() {
	case "src", "dst", "host", "net", "port", "portrange":
		return p.addressOrPort(protocol)
	}
	return protocol, nil
}

// afterVLAN parses the rest of a condition that begins with "vlan": an ID, or nothing.
func (p *parser) afterVLAN() (predicate, error) {
	if !startsWithDigit(p.word()) {
		return func(v fields) bool { return v.vlan >= 0 }, nil
	}
	n, err := p.number(maxVLAN)
	return func(v fields) bool { return v.vlan == n }, err
}

// direction selects the source, the destination, or either of them.
type direction struct{ src, dst bool }

func (p *parser) direction() direction {
	word, _ := p.accept("src", "dst")
	return direction{word != "dst", word != "src"}
}

// addressOrPort parses the qualifiers and the value of a condition about an address or a port. protocol is the one before
// them, nil if there is none.
func (p *parser) addressOrPort(protocol predicate) (predicate, error) {
	before := p.at
	q := qualifiers{protocol: protocol, direction: p.direction()}
	q.what, _ = p.accept("host", "net", "port", "portrange")
	explicit := p.at > before || protocol != nil
	if !explicit {
		q = p.inherited(q)
	}
	match, err := p.value(q, explicit)
	if err != nil {
		return nil, err
	}
	p.latest = &q
	if q.protocol == nil {
		return match, nil
	}
	return func(v fields) bool { return q.protocol(v) && match(v) }, nil
}

// inherited returns the qualifiers of a value without any: the latest ones if they fit the value, otherwise none.
func (p *parser) inherited(none qualifiers) qualifiers {
	if p.latest == nil {
		return none
	}
	_, isIP := parsePrefix(p.word())
	ports := p.latest.what == "port" || p.latest.what == "portrange"
	if isIP != ports && (isIP || startsWithDigit(p.word())) {
		return *p.latest
	}
	return none
}

// value parses the address or port after the qualifiers q. explicit is false when there were none.
func (p *parser) value(q qualifiers, explicit bool) (predicate, error) {
	d := q.direction
	switch q.what {
	case "port":
		n, err := p.number(maxPort)
		return d.ports(n, n), err
	case "portrange":
		return p.portRange(d)
	}
	if prefix, ok := parsePrefix(p.word()); ok {
		p.at++
		return func(v fields) bool { return d.src && prefix.Contains(v.src) || d.dst && prefix.Contains(v.dst) }, nil
	}
	if explicit {
		return nil, p.unexpected("an IP address")
	}
	return nil, p.unexpected("a condition such as host 10.32.0.1, tcp port 80 or arp")
}

func startsWithDigit(word string) bool { return word != "" && unicode.IsDigit(rune(word[0])) }

// parsePrefix parses an address or a network. Host bits of a network are ignored.
func parsePrefix(word string) (netip.Prefix, bool) {
	if addr, err := netip.ParseAddr(word); err == nil {
		return netip.PrefixFrom(addr, addr.BitLen()), addr.Zone() == ""
	}
	prefix, err := netip.ParsePrefix(word)
	return prefix.Masked(), err == nil
}

func (p *parser) portRange(d direction) (predicate, error) {
	low, high, _ := strings.Cut(p.word(), "-")
	from, errLow := strconv.ParseUint(low, 10, 16)
	to, errHigh := strconv.ParseUint(high, 10, 16)
	if errLow != nil || errHigh != nil || from > to {
		return nil, p.unexpected("a range of ports such as 8000-8080")
	}
	p.at++
	return d.ports(int(from), int(to)), nil
}

// ports matches ports from low to high.
func (d direction) ports(low, high int) predicate {
	within := func(port uint16) bool { return low <= int(port) && int(port) <= high }
	return func(v fields) bool { return v.ports && (d.src && within(v.from) || d.dst && within(v.to)) }
}

// afterEther parses the rest of a condition that begins with "ether".
func (p *parser) afterEther() (predicate, error) {
	if _, ok := p.accept("proto"); ok {
		n, err := p.number(0xffff)
		return func(v fields) bool { return int(v.etherType) == n }, err
	}
	d := p.direction()
	p.accept("host")
	mac, err := ether.ParseAddr(p.word())
	if err != nil {
		return nil, p.unexpected("a hardware address, or proto and a number,")
	}
	p.at++
	return func(v fields) bool {
		return len(v.frame) >= ether.HeaderLen && (d.src && ether.Source(v.frame) == mac || d.dst && ether.Destination(v.frame) == mac)
	}, nil
}

// number parses a number from 0 to most, decimal, or hexadecimal with 0x.
func (p *parser) number(most uint64) (int, error) {
	n, err := strconv.ParseUint(p.word(), 0, 32)
	if err != nil || n > most {
		return 0, p.unexpected(fmt.Sprintf("a number up to %d", most))
	}
	p.at++
	return int(n), nil
}
