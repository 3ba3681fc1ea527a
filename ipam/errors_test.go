package ipam

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"weft/internal/peer"
)

// TestHintsNameTheCommand: each error wraps its sentinel, names the facts, and has a hint with the command to run.
func TestHintsNameTheCommand(t *testing.T) {
	cidr := netip.MustParsePrefix("10.32.0.0/24")
	silent := UnresponsiveError{
		Node: nodeID(2), Name: "nc", Range: cidr, Dead: nodeID(3), DeadName: "nd", Named: []peer.ID{nodeID(3)},
	}
	late := silent
	late.Reachable = true
	command := "`weft reclaim " + nodeID(3).String() + " " + nodeID(2).String() + "`"
	for _, tt := range []struct {
		err interface {
			error
			Hint() string
		}
		is    error
		facts []string
		hints []string
	}{
		{
			&ExhaustedError{Prefix: cidr, Leased: 254, Size: 254}, ErrExhausted,
			[]string{"10.32.0.0/24 is full: 254 of 254 addresses leased"}, []string{"`weft ip list`"},
		},
		{
			&ExhaustedError{Prefix: cidr, Leased: 200, Size: 254, Unreachable: []string{"nb"}, Silent: []string{"nc", "nd"}}, ErrExhausted,
			[]string{"1 owner unreachable (nb)", "2 owners gave no answer (nc, nd)"},
			[]string{"`weft ip list`", "`weft reclaim NODE`", "Try again"},
		},
		{
			&ExhaustedError{Prefix: cidr, Leased: 200, Size: 254, Apart: 54}, ErrExhausted,
			[]string{"54 addresses for holders in subnets of their own alone"}, []string{"`weft ip list`"},
		},
		{
			&UnreachableError{Addr: cidr.Addr(), Owner: nodeID(2), Name: "nc"}, ErrUnreachable,
			[]string{"10.32.0.0 belongs to node nc"}, []string{"Wait for node nc", "`weft reclaim nc`"},
		},
		{&silent, ErrUnresponsive, []string{"node nc", "10.32.0.0/24", "not reachable"}, []string{"Bring node nc back", command}},
		{&late, ErrUnresponsive, []string{"node nc", "node nd", "10.32.0.0/24"}, []string{"Try again when node nc answers", command}},
	} {
		if !errors.Is(tt.err, tt.is) {
			t.Errorf("%v is not %v", tt.err, tt.is)
		}
		for _, fact := range tt.facts {
			if !strings.Contains(tt.err.Error(), fact) {
				t.Errorf("%v, want %q in it", tt.err, fact)
			}
		}
		for _, hint := range tt.hints {
			if !strings.Contains(tt.err.Hint(), hint) {
				t.Errorf("%q, want %q in it", tt.err.Hint(), hint)
			}
		}
	}
}
