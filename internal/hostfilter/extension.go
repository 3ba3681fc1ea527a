package hostfilter

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// extension returns the condition of a match of iptables, and its options. Extensions without a case here are Unknown.
func extension(name string, revision byte, data []byte) (Condition, []string) {
	switch {
	case (name == "tcp" || name == "udp") && len(data) >= 8:
		return portMatch(data)
	case name == "conntrack" && revision >= 2 && len(data) >= conntrackLen:
		return conntrackMatch(data)
	case name == "state" && len(data) >= 4:
		return stateMatch(binary.NativeEndian.Uint32(data), false)
	case name == "addrtype" && revision == 1 && len(data) >= 8:
		return addrtypeMatch(data)
	case name == "multiport" && revision == 1 && len(data) >= multiportLen:
		return multiportMatch(data)
	}
	return Unknown{}, nil
}

// portMatch is xt_tcp and xt_udp: ranges of source and destination ports, then TCP option, flags and their mask, and inversion.
func portMatch(data []byte) (Condition, []string) {
	port := func(i int) uint16 { return binary.NativeEndian.Uint16(data[2*i:]) }
	for _, b := range data[8:] {
		if b != 0 {
			return Unknown{}, nil
		}
	}
	const last = 0xffff
	var conditions all
	var words []string
	if port(0) != 0 || port(1) != last {
		conditions, words = append(conditions, SrcPort{{port(0), port(1)}}), append(words, "--sport", portText(port(0), port(1)))
	}
	if port(2) != 0 || port(3) != last {
		conditions, words = append(conditions, DstPort{{port(2), port(3)}}), append(words, "--dport", portText(port(2), port(3)))
	}
	return conditions, words
}

func portText(first, last uint16) string {
	if first == last {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d:%d", first, last)
}

// all is met by packets that meet all of the conditions.
type all []Condition

func (list all) match(p *Packet) Match {
	least := Always
	for _, c := range list {
		least = min(least, c.match(p))
	}
	return least
}

// multiportLen is the length of xt_multiport_v1: mode, count, 15 ports, 15 flags of ranges, inversion.
const multiportLen = 2 + 30 + 15 + 1

// multiportMatch is xt_multiport_v1.
func multiportMatch(data []byte) (Condition, []string) {
	const destination, most = 1, 15
	count := int(data[1])
	if data[0] != destination || count > most || data[multiportLen-1] != 0 {
		return Unknown{}, nil
	}
	var list DstPort
	var texts []string
	port := func(i int) uint16 { return binary.NativeEndian.Uint16(data[2+2*i:]) }
	for i := 0; i < count; i++ {
		r := PortRange{port(i), port(i)}
		if data[32+i] != 0 && i+1 < count {
			i++
			r.Last = port(i)
		}
		list, texts = append(list, r), append(texts, portText(r.First, r.Last))
	}
	return list, []string{"--dports", strings.Join(texts, ",")}
}

// Layout of xt_conntrack_mtinfo2 and 3 (linux/netfilter/xt_conntrack.h): eight addresses of 16 bytes, two times of 4, protocol and
// four ports of 2, then the flags.
const (
	conntrackFlags  = 128 + 8 + 10
	conntrackInvert = conntrackFlags + 2
	conntrackState  = conntrackFlags + 4
	conntrackStatus = conntrackFlags + 6
	conntrackLen    = conntrackFlags + 8
)

// conntrackMatch is xt_conntrack; only the state alone is evaluated.
func conntrackMatch(data []byte) (Condition, []string) {
	const onState, alias = 1, 1 << 13 // the rule was written with "-m state"
	u16 := func(at int) uint32 { return uint32(binary.NativeEndian.Uint16(data[at:])) }
	if u16(conntrackFlags)&^alias != onState {
		return Unknown{}, nil
	}
	return stateMatch(u16(conntrackState), u16(conntrackInvert)&onState != 0)
}

// stateMatch returns the condition for a mask of states of connections.
func stateMatch(mask uint32, inverted bool) (Condition, []string) {
	var names []string
	for _, s := range []struct {
		bit  uint32
		name string
	}{{1 << 0, "invalid"}, {1 << 1, "established"}, {1 << 2, "related"}, {1 << 3, "new"}, {1 << 8, "untracked"}} {
		if mask&s.bit != 0 {
			names = append(names, s.name)
		}
	}
	words := []string{"--ctstate", strings.ToUpper(strings.Join(names, ","))}
	if len(names) == 0 { // SNAT and DNAT, which are no states of nftables
		return Mapped{}, words
	}
	if inverted {
		return Not{State(names)}, append([]string{"!"}, words...)
	}
	return State(names), words
}

// addrtypeMatch is xt_addrtype_info_v1; only the type of the destination is evaluated.
func addrtypeMatch(data []byte) (Condition, []string) {
	const unicast, local, groups, inverts = 1 << 1, 1 << 2, 1<<3 | 1<<4 | 1<<5, 1<<0 | 1<<1
	source, destination := binary.NativeEndian.Uint16(data), binary.NativeEndian.Uint16(data[2:])
	flags := binary.NativeEndian.Uint32(data[4:])
	if source != 0 || flags&inverts != 0 {
		return Unknown{}, nil
	}
	switch {
	case destination == local:
		return DstLocal{}, []string{"--dst-type", "LOCAL"}
	case destination&^groups == 0:
		return Group{}, []string{"--dst-type", "BROADCAST,MULTICAST"}
	case destination == unicast:
		return Unknown{}, []string{"--dst-type", "UNICAST"}
	}
	return Unknown{}, nil
}
