package filter

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"pgregory.net/rapid"

	"weft/internal/ether"
	"weft/internal/nettest/labtest"
	"weft/internal/packet"
)

// compile returns the program that tcpdump makes of an expression, on a machine that runs it. The optimizer is off (-O),
// since it refuses expressions that match nothing.
func compile(expression string) (*bpf.VM, error) {
	cmd := exec.Command("tcpdump", "-O", "-ddd", "-y", "EN10MB", expression)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("tcpdump -O -ddd %q: %w: %s", expression, err, stderr.Bytes())
	}
	// The first line is the number of instructions. Each other line is one of them: code, jt, jf and k.
	var raw []bpf.RawInstruction
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) != 4 {
			continue
		}
		var n [4]uint64
		for i, word := range words {
			if n[i], err = strconv.ParseUint(word, 10, 32); err != nil {
				return nil, fmt.Errorf("tcpdump -O -ddd %q: %w", expression, err)
			}
		}
		raw = append(raw, bpf.RawInstruction{Op: uint16(n[0]), Jt: uint8(n[1]), Jf: uint8(n[2]), K: uint32(n[3])})
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		return nil, fmt.Errorf("tcpdump -O -ddd %q: unknown instructions", expression)
	}
	return bpf.NewVM(program)
}

// tcpdumpMatches reports whether a program that tcpdump has made matches a frame.
func tcpdumpMatches(vm *bpf.VM, frame []byte) (bool, error) {
	n, err := vm.Run(frame)
	return n > 0, err
}

// expression is one expression in both languages. They differ where tcpdump has no short form.
type expression struct{ weft, tcpdump string }

func same(text string) expression { return expression{text, text} }

// The values of the random expressions and frames. There are few of them, so that they often meet.
var (
	randomIPv4  = []string{"10.32.0.1", "10.32.0.9", "10.33.0.2", "192.0.2.1"}
	randomIPv6  = []string{"fd00::1", "fd00::2", "fd00:0:0:1::9"}
	randomNets4 = []string{"10.32.0.0/16", "10.32.0.0/12", "10.32.0.8/30", "0.0.0.0/0", "192.0.2.1/32"}
	randomNets6 = []string{"fd00::/64", "fd00::/48", "fd00::/8"}
	randomMACs  = []string{"06:57:00:00:00:01", "06:57:00:00:00:02", "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"}
	randomPorts = []int{0, 22, 53, 80, 443, 40000, 65535}
)

func pick[T any](t *rapid.T, label string, from []T) T { return rapid.SampledFrom(from).Draw(t, label) }

// layer2Condition draws a condition that does not depend on what follows the Ethernet header.
func layer2Condition(t *rapid.T) expression {
	switch rapid.IntRange(0, 4).Draw(t, "layer 2 condition") {
	case 0:
		mac := pick(t, "MAC", randomMACs)
		direction := pick(t, "direction", []string{"host", "src", "dst", "src host", "dst host"})
		return same("ether " + direction + " " + mac)
	case 1:
		return same("broadcast")
	case 2:
		return same("multicast")
	default:
		word := pick(t, "length", []string{"less", "greater"})
		return same(fmt.Sprintf("%s %d", word, rapid.IntRange(14, 150).Draw(t, "bytes")))
	}
}

// layer3Condition draws a condition about the payload of a frame without tags.
func layer3Condition(t *rapid.T) expression {
	switch rapid.IntRange(0, 7).Draw(t, "layer 3 condition") {
	case 0:
		return same(pick(t, "protocol", []string{"arp", "ip", "ip6", "icmp", "icmp6", "tcp", "udp", "sctp"}))
	case 1:
		return same(fmt.Sprintf("ether proto %#x", pick(t, "EtherType", []int{0x0800, 0x0806, 0x86dd, 0x88b5})))
	case 2, 3:
		return addressCondition(t, pick(t, "protocol", []string{"", "ip", "arp"}), randomIPv4, randomNets4)
	case 4:
		return addressCondition(t, pick(t, "protocol", []string{"", "ip6"}), randomIPv6, randomNets6)
	default:
		return portCondition(t)
	}
}

// addressCondition draws a condition about an address or a network, with "host" and "net" or without, and sometimes a
// second value that inherits the qualifiers.
func addressCondition(t *rapid.T, protocol string, hosts, nets []string) expression {
	direction := pick(t, "direction", []string{"", "src", "dst"})
	what, values := "host", hosts
	if rapid.Bool().Draw(t, "net") {
		what, values = "net", nets
	}
	value := pick(t, "value", values)
	full := words(protocol, direction, what, value)
	e := same(full)
	if direction != "" && rapid.Bool().Draw(t, "omit host or net") {
		e.weft = words(protocol, direction, value) // without a direction it would inherit the qualifiers before it
	}
	return withInherited(t, e, func() string { return pick(t, "next value", values) })
}

// portCondition draws a condition about a port or a range of ports.
func portCondition(t *rapid.T) expression {
	protocol := pick(t, "protocol", []string{"", "tcp", "udp", "sctp"})
	direction := pick(t, "direction", []string{"", "src", "dst"})
	if rapid.Bool().Draw(t, "range") {
		portRange := func() string {
			low := pick(t, "low", randomPorts)
			return fmt.Sprintf("%d-%d", low, min(low+rapid.IntRange(0, 500).Draw(t, "ports"), 65535))
		}
		return withInherited(t, same(words(protocol, direction, "portrange", portRange())), portRange)
	}
	port := func() string {
		return fmt.Sprintf(pick(t, "base", []string{"%d", "%#x"}), pick(t, "port", randomPorts))
	}
	return withInherited(t, same(words(protocol, direction, "port", port())), port)
}

// withInherited sometimes appends a value without qualifiers, joined by "or" or "and".
func withInherited(t *rapid.T, e expression, value func() string) expression {
	if rapid.IntRange(0, 3).Draw(t, "inherit") > 0 {
		return e
	}
	rest := " " + pick(t, "join", []string{"or", "and", "||", "&&"}) + " " + value()
	return expression{"(" + e.weft + rest + ")", "(" + e.tcpdump + rest + ")"}
}

func words(list ...string) string {
	return strings.Join(slices.DeleteFunc(list, func(w string) bool { return w == "" }), " ")
}

// randomExpression joins up to five conditions by "and", "or", "not" and parentheses.
func randomExpression(t *rapid.T, condition func(*rapid.T) expression) expression {
	e := condition(t)
	for range rapid.IntRange(0, 4).Draw(t, "joins") {
		next := condition(t)
		if rapid.Bool().Draw(t, "not") {
			not := pick(t, "not", []string{"not ", "!", "not not "})
			next = expression{not + "(" + next.weft + ")", not + "(" + next.tcpdump + ")"}
		}
		join := pick(t, "join", []string{"and", "or", "&&", "||", "omitted"})
		switch {
		case join == "omitted":
			e = expression{e.weft + " (" + next.weft + ")", e.tcpdump + " and (" + next.tcpdump + ")"}
		case rapid.Bool().Draw(t, "left parentheses"):
			e = expression{"(" + e.weft + ") " + join + " (" + next.weft + ")", "(" + e.tcpdump + ") " + join + " (" + next.tcpdump + ")"}
		default:
			e = expression{e.weft + " " + join + " (" + next.weft + ")", e.tcpdump + " " + join + " (" + next.tcpdump + ")"}
		}
	}
	return e
}

// vlanExpression draws an expression with one vlan: tcpdump reads a second one from the next tag.
func vlanExpression(t *rapid.T) expression {
	vlan := pick(t, "vlan", []string{"vlan", "vlan 0", "vlan 7", "vlan 0xfff", "not vlan", "not vlan 8"})
	if rapid.Bool().Draw(t, "alone") {
		return same(vlan)
	}
	other := layer2Condition(t)
	join := pick(t, "join", []string{" and ", " or "})
	return expression{vlan + join + other.weft, vlan + join + other.tcpdump}
}

// frameKind limits random frames to those for which the two languages agree: see differences.
type frameKind struct{ tagged, ipv6Fragment bool }

// randomFrame draws a frame with complete headers.
func randomFrame(t *rapid.T, kind frameKind) []byte {
	var frame []byte
	for _, label := range []string{"destination", "source"} {
		mac, err := ether.ParseAddr(pick(t, label, randomMACs))
		if err != nil {
			t.Fatal(err)
		}
		frame = append(frame, mac[:]...)
	}
	if kind.tagged {
		for range rapid.IntRange(0, 2).Draw(t, "tags") {
			frame = binary.BigEndian.AppendUint16(frame, pick(t, "TPID", []uint16{ether.TypeVLAN, ether.TypeQinQ}))
			priority := uint16(rapid.IntRange(0, 7).Draw(t, "priority")) << 13
			frame = binary.BigEndian.AppendUint16(frame, priority|pick(t, "VLAN", []uint16{0, 7, 8, 4095}))
		}
	}
	switch rapid.IntRange(0, 5).Draw(t, "payload") {
	case 0:
		frame = binary.BigEndian.AppendUint16(frame, 0x88b5) // for experiments (IEEE 802)
		return append(frame, make([]byte, rapid.IntRange(60, 120).Draw(t, "padding"))...)
	case 1:
		return append(binary.BigEndian.AppendUint16(frame, ether.TypeARP), randomARP(t)...)
	case 2, 3:
		return append(binary.BigEndian.AppendUint16(frame, ether.TypeIPv4), randomPacket4(t)...)
	default:
		return append(binary.BigEndian.AppendUint16(frame, ether.TypeIPv6), randomPacket6(t, kind.ipv6Fragment)...)
	}
}

func randomARP(t *rapid.T) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, byte(rapid.IntRange(1, 2).Draw(t, "operation"))}
	b = append(b, 6, 0x57, 0, 0, 0, 1)
	b = append(b, netip.MustParseAddr(pick(t, "sender", randomIPv4)).AsSlice()...)
	b = append(b, make([]byte, 6)...)
	b = append(b, netip.MustParseAddr(pick(t, "target", randomIPv4)).AsSlice()...)
	return append(b, make([]byte, 40)...) // padding, as on a wire
}

var randomProtocols = []packet.Protocol{packet.ICMP, packet.TCP, packet.UDP, packet.SCTP, packet.ICMPv6, 89}

func randomPacket4(t *rapid.T) []byte {
	words := rapid.IntRange(5, 15).Draw(t, "IHL")
	ip := make([]byte, 4*words)
	ip[0] = 0x40 | byte(words)
	// All 16 bits: the flags, and an offset that is 0 in half of the packets.
	fragment := uint16(rapid.IntRange(0, 7).Draw(t, "flags")) << 13
	if rapid.Bool().Draw(t, "later fragment") {
		fragment |= uint16(rapid.IntRange(1, int(packet.IPv4OffsetMask)).Draw(t, "offset"))
	}
	binary.BigEndian.PutUint16(ip[packet.IPv4Fragment:], fragment)
	ip[packet.IPv4Protocol] = byte(pick(t, "IP protocol", randomProtocols))
	copy(ip[packet.IPv4Source:], netip.MustParseAddr(pick(t, "source", randomIPv4)).AsSlice())
	copy(ip[packet.IPv4Destination:], netip.MustParseAddr(pick(t, "destination", randomIPv4)).AsSlice())
	return append(ip, randomTransport(t)...)
}

func randomPacket6(t *rapid.T, fragments bool) []byte {
	ip := make([]byte, packet.IPv6Len)
	ip[0] = 0x60
	proto := byte(pick(t, "next header", randomProtocols))
	ip[packet.IPv6Next] = proto
	copy(ip[packet.IPv6Source:], netip.MustParseAddr(pick(t, "source", randomIPv6)).AsSlice())
	copy(ip[packet.IPv6Destination:], netip.MustParseAddr(pick(t, "destination", randomIPv6)).AsSlice())
	if fragments && rapid.Bool().Draw(t, "fragment") {
		ip[packet.IPv6Next] = byte(packet.Fragment)
		offset := uint16(rapid.IntRange(0, 2).Draw(t, "offset")) << 3
		ip = append(ip, proto, 0, byte(offset>>8), byte(offset), 1, 2, 3, 4)
	}
	return append(ip, randomTransport(t)...)
}

func randomTransport(t *rapid.T) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(pick(t, "source port", randomPorts)))
	b = binary.BigEndian.AppendUint16(b, uint16(pick(t, "destination port", randomPorts)))
	return append(b, make([]byte, rapid.IntRange(20, 60).Draw(t, "rest"))...)
}

// How many random expressions each kind of frames is compared with. tcpdump runs once for each. WEFT_SIM=full compares more.
const (
	expressions      = 20
	expressionsFull  = 1000
	expressionsShort = 5
	framesEach       = 100
)

// comparison is an expression and the frames for which it is evaluated.
type comparison struct {
	expression
	frames [][]byte
}

// TestAgainstTcpdump compares the filter with libpcap, as compiled by tcpdump and run on the BPF machine of x/net: both match
// the same frames, for random expressions and random frames outside of the differences listed below. WEFT_SEED=n repeats a run.
func TestAgainstTcpdump(t *testing.T) {
	labtest.Needs(t, "tcpdump")
	count, seed := expressions, rand.IntN(1<<31)
	switch {
	case os.Getenv("WEFT_SIM") == "full":
		count = expressionsFull
	case testing.Short():
		count = expressionsShort
	}
	if text := os.Getenv("WEFT_SEED"); text != "" {
		var err error
		if seed, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name       string
		expression func(*rapid.T) expression
		kind       frameKind
	}{
		{"any condition, frames without tags", joined(anyCondition), frameKind{}},
		{"protocols and addresses, IPv6 fragments", joined(fragmentCondition), frameKind{ipv6Fragment: true}},
		{"layer 2, tagged frames", joined(layer2Condition), frameKind{tagged: true}},
		{"VLAN IDs, tagged frames", vlanExpression, frameKind{tagged: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			comparisons := rapid.Custom(func(t *rapid.T) comparison {
				c := comparison{expression: tt.expression(t)}
				for range framesEach {
					c.frames = append(c.frames, randomFrame(t, tt.kind))
				}
				return c
			})
			for i := range count {
				if err := comparisons.Example(seed + i).run(); err != nil {
					t.Fatalf("WEFT_SEED=%d: %v", seed, err)
				}
			}
		})
	}
}

// joined returns a generator of expressions that consist of conditions.
func joined(condition func(*rapid.T) expression) func(*rapid.T) expression {
	return func(t *rapid.T) expression { return randomExpression(t, condition) }
}

func anyCondition(t *rapid.T) expression {
	if rapid.IntRange(0, 3).Draw(t, "layer") == 0 {
		return layer2Condition(t)
	}
	return layer3Condition(t)
}

// fragmentCondition draws a condition for which both languages treat IPv6 fragments in the same way.
func fragmentCondition(t *rapid.T) expression {
	if rapid.Bool().Draw(t, "address") {
		return addressCondition(t, "", randomIPv6, randomNets6)
	}
	return same(pick(t, "protocol", []string{"ip", "ip6", "icmp", "icmp6", "tcp", "udp", "sctp"}))
}

// run returns an error when the two languages disagree.
func (c comparison) run() error {
	f, err := Parse(c.weft)
	if err != nil {
		return fmt.Errorf("weft refuses %q: %w", c.weft, err)
	}
	vm, err := compile(c.tcpdump)
	if err != nil {
		return err
	}
	for _, frame := range c.frames {
		want, err := tcpdumpMatches(vm, frame)
		if err != nil {
			return err
		}
		if got := f.Match(frame, len(frame)); got != want {
			return fmt.Errorf("%q matches: %v; tcpdump %q: %v; frame %x", c.weft, got, c.tcpdump, want, frame)
		}
	}
	return nil
}

// differences are the expressions for which weft's language is meant to differ from tcpdump's.
var differences = []struct {
	name, expression string
	reason           string
	frame            func() []byte // nil: tcpdump refuses the expression
	weft, tcpdump    bool          // whether it matches
}{
	{
		name: "tags are transparent", expression: "tcp", frame: taggedTCP, weft: true,
		reason: "tcpdump expects IP directly after the addresses, but an operator need not know which pods use tags",
	},
	{
		name: "ether proto after tags", expression: "ether proto 0x0800", frame: taggedTCP, weft: true,
		reason: "for the same reason: it is the type of the payload after all tags",
	},
	{
		name: "vlan changes nothing for later conditions", expression: "vlan or tcp", frame: untaggedTCP, weft: true,
		reason: "tcpdump reads all conditions after a vlan four bytes further on, in the whole expression",
	},
	{
		name: "vlan is about the outermost tag", expression: "vlan 7 and vlan 8", frame: doubleTagged, tcpdump: true,
		reason: "in tcpdump a second vlan is about the second tag, for the same reason",
	},
	{
		name: "old TPID", expression: "vlan", frame: oldTPID, tcpdump: true,
		reason: "0x9100 was never standardized, and the bridge does not treat it as a tag",
	},
	{
		name: "extension headers", expression: "tcp", frame: optionsTCP, weft: true,
		reason: "tcpdump examines only the first header, and the one after a fragment header",
	},
	{
		name: "ports after extension headers", expression: "port 80", frame: optionsTCP, weft: true,
		reason: "the same",
	},
	{
		name: "ports of a first IPv6 fragment", expression: "port 80", frame: fragmentTCP, weft: true,
		reason: "as for IPv4, where both find them",
	},
	{
		name: "frames that end early", expression: "not tcp", frame: func() []byte { return untaggedTCP()[:20] }, weft: true,
		reason: "a BPF program ends without a match at a load beyond the frame, also inside of not",
	},
	{
		name: "RARP", expression: "host 10.32.0.1", frame: rarp, tcpdump: true,
		reason: "RARP (RFC 903) is obsolete",
	},
	{
		name: "802.3 lengths", expression: "ether proto 6", frame: llc, tcpdump: true,
		reason: "numbers up to 1500 are LLC service access points in tcpdump",
	},
	{name: "a network without net", expression: "10.32.0.0/12", reason: "shorter"},
	{name: "a network after a direction", expression: "src 10.32.0.0/12", reason: "shorter"},
	{name: "an IPv6 address without host", expression: "fd00::1", reason: "shorter, and as for IPv4"},
	{name: "a hardware address without host", expression: "ether 06:57:00:00:00:01", reason: "shorter"},
	{name: "omitted and", expression: "tcp port 80 icmp", reason: "shorter"},
	{name: "a transport protocol before host", expression: "tcp host 10.32.0.1", reason: "it means tcp and host"},
	{name: "a network protocol before port", expression: "ip port 80", reason: "it means ip and port"},
	{name: "protocol and address of different versions", expression: "ip host fd00::1", reason: "it matches no frame"},
}

func frameOf(etherType uint16, payload ...[]byte) []byte {
	frame := []byte{6, 0x57, 0, 0, 0, 2, 6, 0x57, 0, 0, 0, 1}
	return append(binary.BigEndian.AppendUint16(frame, etherType), slices.Concat(payload...)...)
}

func tcpPacket() []byte {
	ip := make([]byte, packet.IPv4MinLen)
	ip[0], ip[packet.IPv4Protocol] = 0x45, byte(packet.TCP)
	copy(ip[packet.IPv4Source:], []byte{10, 32, 0, 1})
	return append(ip, tcpHeader()...)
}

func tcpHeader() []byte { return append([]byte{0x9c, 0x40, 0, 80}, make([]byte, 16)...) }

func packet6(next byte, payload ...[]byte) []byte {
	ip := make([]byte, packet.IPv6Len)
	ip[0], ip[packet.IPv6Next] = 0x60, next
	return append(ip, slices.Concat(payload...)...)
}

func untaggedTCP() []byte { return frameOf(ether.TypeIPv4, tcpPacket()) }

func taggedTCP() []byte { return frameOf(ether.TypeVLAN, []byte{0, 7, 8, 0}, tcpPacket()) }

func doubleTagged() []byte {
	return frameOf(ether.TypeQinQ, []byte{0, 7, 0x81, 0, 0, 8, 8, 0}, tcpPacket())
}

func oldTPID() []byte { return frameOf(0x9100, []byte{0, 7, 8, 0}, tcpPacket()) }

func optionsTCP() []byte {
	return frameOf(ether.TypeIPv6, packet6(byte(packet.DestinationOptions), []byte{byte(packet.TCP), 0, 1, 4, 0, 0, 0, 0}, tcpHeader()))
}

func fragmentTCP() []byte {
	return frameOf(ether.TypeIPv6, packet6(byte(packet.Fragment), []byte{byte(packet.TCP), 0, 0, 1, 0, 0, 0, 1}, tcpHeader()))
}

func rarp() []byte {
	return frameOf(0x8035, []byte{0, 1, 8, 0, 6, 4, 0, 3}, make([]byte, 6), []byte{10, 32, 0, 1}, make([]byte, 46))
}

func llc() []byte { return frameOf(60, []byte{6, 6, 3}, make([]byte, 57)) }

// TestDifferencesToTcpdump holds the list of differences: each of them is still one.
func TestDifferencesToTcpdump(t *testing.T) {
	labtest.Needs(t, "tcpdump")
	for _, d := range differences {
		t.Run(d.name, func(t *testing.T) {
			f, err := Parse(d.expression)
			if err != nil {
				t.Fatal(err)
			}
			vm, err := compile(d.expression)
			if d.frame == nil {
				if err == nil {
					t.Errorf("tcpdump accepts %q too; remove it from the list (%s)", d.expression, d.reason)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			frame := d.frame()
			theirs, err := tcpdumpMatches(vm, frame)
			if err != nil {
				t.Fatal(err)
			}
			if ours := f.Match(frame, len(frame)); ours != d.weft || theirs != d.tcpdump || ours == theirs {
				t.Errorf("%q: weft %v, want %v; tcpdump %v, want %v (%s)", d.expression, ours, d.weft, theirs, d.tcpdump, d.reason)
			}
		})
	}
}
