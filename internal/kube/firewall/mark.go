package firewall

import (
	"fmt"
	"slices"

	"weft/internal/kube/policy"
)

// The packet mark passes decisions between the two tables, and is cleared behind them. A packet has it in the bridge's forward
// path, or between the bridge's input and output. kube-proxy uses 0x4000 and 0x8000; other bits keep their value.
//
//	31          20 19  14 13         4  3  2  1 0
//	| ingress chain |  –  | egress chain |R|U| –  |
const (
	unjudged   = 0x4 // U: a packet of a pod that a policy selects; the inet table clears it
	routed     = 0x8 // R: a packet that the host has routed to a bridge and that starts a connection
	ingressBit = 20
	egressBit  = 4
)

// Masks of the fields, and the highest number in them. Number 0 stands for no chain.
const (
	maxIngress  = 1<<12 - 1
	maxEgress   = 1<<10 - 1
	ingressMask = maxIngress << ingressBit
	egressMask  = maxEgress << egressBit
	allMarks    = ingressMask | egressMask | unjudged | routed
)

// field describes the part of the mark that has the number of a chain of one direction.
type field struct {
	mask, bit, highest int
}

func fieldOf(d policy.Direction) field {
	if d == policy.Egress {
		return field{egressMask, egressBit, maxEgress}
	}
	return field{ingressMask, ingressBit, maxIngress}
}

// value returns the mark with the number of a chain.
func (f field) value(number int) int { return number << f.bit }

// has returns the condition that one of the bits is set.
func has(bits int) string { return fmt.Sprintf("meta mark & %#x != 0", bits) }

// setMark returns the statement that clears some bits of the mark and then sets some.
func setMark(clear, set int) string {
	switch {
	case clear == 0:
		return fmt.Sprintf("meta mark set meta mark | %#x", set)
	case set == 0:
		return fmt.Sprintf("meta mark set meta mark & %#x", ^uint32(clear))
	}
	return fmt.Sprintf("meta mark set meta mark & %#x | %#x", ^uint32(clear), set)
}

// assign gives each chain a number from 1 to highest, and keeps the numbers that chains have in old. Chains for which no number
// is left have none. The chains are sorted and have no duplicates.
func assign(chains []string, old map[string]int, highest int) map[string]int {
	out := make(map[string]int, len(chains))
	for _, c := range chains {
		if n := old[c]; n != 0 {
			out[c] = n
		}
	}
	number(chains, out, highest)
	return out
}

// number adds a free number for each of the chains that has none, as long as there are some.
func number(chains []string, numbers map[string]int, highest int) {
	taken := make([]bool, highest+1)
	for _, n := range numbers {
		taken[n] = true
	}
	next := 1
	for _, c := range chains {
		if numbers[c] != 0 {
			continue
		}
		free := slices.Index(taken[next:], false)
		if free < 0 {
			return
		}
		next += free
		numbers[c], taken[next] = next, true
	}
}
