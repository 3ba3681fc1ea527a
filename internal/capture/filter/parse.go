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

// ErrSyntax is wrapped by Parse's errors, which say what stands where something else should.
var ErrSyntax = errors.New("not a filter")

// maxLength bounds an expression in bytes, and with it how deep it can nest.
const maxLength = 4096

// Parse returns the filter that an expression stands for; an empty one chooses all frames.
func Parse(expression string) (*Filter, error) {
	if len(expression) > maxLength {
		return nil, fmt.Errorf("filter: %w: it is longer than %d bytes", ErrSyntax, maxLength)
	}
	p := parser{words: split(expression)}
	if len(p.words) == 0 {
		return &Filter{}, nil
	}
	matches, err := p.all()
	if err == nil && p.word() != "" {
		err = p.unexpected("and, or, or the end")
	}
	if err != nil {
		return nil, fmt.Errorf("filter: %w: %w", ErrSyntax, err)
	}
	return &Filter{matches}, nil
}

// split returns the words of an expression; parentheses, "!", "&&" and "||" are words wherever they stand.
func split(expression string) []string {
	for _, sign := range []string{"(", ")", "!", "&&", "||"} {
		expression = strings.ReplaceAll(expression, sign, " "+sign+" ")
	}
	return strings.FieldsFunc(expression, unicode.IsSpace)
}

type parser struct {
	words  []string
	at     int
	latest *qualifiers // nil: none yet
}

// qualifiers are what stands before an address or a port, and counts for those that follow without any: "src host A or B".
type qualifiers struct {
	protocol predicate // nil: any
	direction
	what string // host, net, port or portrange
}

// word returns the next word, "" behind the last.
func (p *parser) word() string {
	if p.at == len(p.words) {
		return ""
	}
	return p.words[p.at]
}

// take takes the next word where it is one of those given.
func (p *parser) take(words ...string) (word string, ok bool) {
	for _, w := range words {
		if p.word() == w {
			p.at++
			return w, true
		}
	}
	return "", false
}

func (p *parser) unexpected(wanted string) error {
	if p.word() == "" {
		return fmt.Errorf("it ends where %s should be", wanted)
	}
	return fmt.Errorf("%q (word %d) stands where %s should be", p.word(), p.at+1, wanted)
}

// all is single, and what is joined to it by "and", which need not be said, and "or". As for tcpdump neither goes before the other: they
// are taken from left to right.
func (p *parser) all() (predicate, error) {
	left, err := p.single()
	for err == nil {
		word, said := p.take("or", "||", "and", "&&")
		or := word == "or" || word == "||"
		if next := p.word(); !said && (next == "" || next == ")") {
			return left, nil
		}
		first := left
		var second predicate
		second, err = p.single()
		if or {
			left = func(v view) bool { return first(v) || second(v) }
		} else {
			left = func(v view) bool { return first(v) && second(v) }
		}
	}
	return nil, err
}

func (p *parser) single() (predicate, error) {
	if _, ok := p.take("not", "!"); ok {
		inner, err := p.single()
		return func(v view) bool { return !inner(v) }, err
	}
	if _, ok := p.take("("); ok {
		inner, err := p.all()
		if _, closed := p.take(")"); err == nil && !closed {
			return nil, p.unexpected(")")
		}
		return inner, err
	}
	return p.primitive()
}

// protocols are what may stand alone, or before host, net and port.
var protocols = map[string]predicate{
	"arp": ofKind(ether.TypeARP), "ip": ofKind(ether.TypeIPv4), "ip6": ofKind(ether.TypeIPv6),
	"icmp": ofProto(packet.ICMP), "icmp6": ofProto(packet.ICMPv6),
	"tcp": ofProto(packet.TCP), "udp": ofProto(packet.UDP), "sctp": ofProto(packet.SCTP),
}

func ofKind(kind uint16) predicate { return func(v view) bool { return v.kind == kind } }
func ofProto(proto packet.Protocol) predicate {
	return func(v view) bool { return v.proto == int(proto) }
}

// primitive is a condition without and, or and not.
func (p *parser) primitive() (predicate, error) {
	word := p.word()
	if protocol, ok := protocols[word]; ok {
		p.at++
		return p.qualified(protocol)
	}
	switch word {
	case "ether":
		p.at++
		return p.ethernet()
	case "broadcast":
		p.at++
		return func(v view) bool {
			return len(v.frame) >= ether.HeaderLen && ether.Destination(v.frame) == ether.Broadcast
		}, nil
	case "multicast":
		p.at++
		return func(v view) bool { return len(v.frame) >= ether.HeaderLen && ether.Destination(v.frame).IsMulticast() }, nil
	case "vlan":
		p.at++
		return p.tagged()
	case "less", "greater":
		p.at++
		n, err := p.number(1 << 20)
		if word == "less" {
			return func(v view) bool { return v.length <= n }, err
		}
		return func(v view) bool { return v.length >= n }, err
	}
	return p.address(nil)
}

// qualified is what may follow a protocol: more of its frames' addresses, or nothing.
func (p *parser) qualified(protocol predicate) (predicate, error) {
	switch p.word() {
	case "src", "dst", "host", "net", "port", "portrange":
		return p.address(protocol)
	}
	return protocol, nil
}

func (p *parser) tagged() (predicate, error) {
	if !startsWithDigit(p.word()) {
		return func(v view) bool { return v.vlan >= 0 }, nil
	}
	n, err := p.number(4095)
	return func(v view) bool { return v.vlan == n }, err
}

// direction is src, dst, or either of them.
type direction struct{ src, dst bool }

func (p *parser) direction() direction {
	word, _ := p.take("src", "dst")
	return direction{word != "dst", word != "src"}
}

// address is [src|dst] and what it is about, of frames of a protocol, or any where that is nil.
func (p *parser) address(protocol predicate) (predicate, error) {
	before := p.at
	q := qualifiers{protocol: protocol, direction: p.direction()}
	q.what, _ = p.take("host", "net", "port", "portrange")
	said := p.at > before || protocol != nil
	if !said {
		q = p.implied(q)
	}
	match, err := p.value(q, said)
	if err != nil {
		return nil, err
	}
	p.latest = &q
	if q.protocol == nil {
		return match, nil
	}
	return func(v view) bool { return q.protocol(v) && match(v) }, nil
}

// implied returns the qualifiers of a word that has none: the latest, where they fit it, or those given.
func (p *parser) implied(none qualifiers) qualifiers {
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

// value is the address, or the ports, that q is about.
func (p *parser) value(q qualifiers, said bool) (predicate, error) {
	d := q.direction
	switch q.what {
	case "port":
		n, err := p.number(65535)
		return d.ports(n, n), err
	case "portrange":
		return p.portRange(d)
	}
	if prefix, ok := parsePrefix(p.word()); ok {
		p.at++
		return func(v view) bool { return d.src && prefix.Contains(v.src) || d.dst && prefix.Contains(v.dst) }, nil
	}
	if said {
		return nil, p.unexpected("an IP address")
	}
	return nil, p.unexpected("a condition such as host 10.32.0.1, tcp port 80 or arp")
}

func startsWithDigit(word string) bool { return word != "" && unicode.IsDigit(rune(word[0])) }

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

func (d direction) ports(low, high int) predicate {
	within := func(port uint16) bool { return low <= int(port) && int(port) <= high }
	return func(v view) bool { return v.ports && (d.src && within(v.from) || d.dst && within(v.to)) }
}

// ethernet is what follows "ether".
func (p *parser) ethernet() (predicate, error) {
	if _, ok := p.take("proto"); ok {
		n, err := p.number(65535)
		return func(v view) bool { return int(v.kind) == n }, err
	}
	d := p.direction()
	p.take("host")
	mac, err := ether.ParseAddr(p.word())
	if err != nil {
		return nil, p.unexpected("a hardware address, or proto and a number,")
	}
	p.at++
	return func(v view) bool {
		return len(v.frame) >= ether.HeaderLen && (d.src && ether.Source(v.frame) == mac || d.dst && ether.Destination(v.frame) == mac)
	}, nil
}

// number takes a number of at most most, decimal or with 0x before it.
func (p *parser) number(most uint64) (int, error) {
	n, err := strconv.ParseUint(p.word(), 0, 32)
	if err != nil || n > most {
		return 0, p.unexpected(fmt.Sprintf("a number up to %d", most))
	}
	p.at++
	return int(n), nil
}
