package e2e

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"weft/internal/nettest/cluster"
)

// TestAddressesByOwner: addresses are allocated in a part of the range, claimed from another node, looked up and released.
func TestAddressesByOwner(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	a, b := nodes[0], nodes[1]
	part := netip.MustParsePrefix("10.47.7.0/24") // of one of the nodes
	for _, n := range nodes {
		first := do(t, n, "ip", "allocate", "web", "--in", part.String())
		p := netip.MustParsePrefix(first)
		if !part.Contains(p.Addr()) || p.Bits() != part.Bits() {
			t.Errorf("allocated %s, want one of %s", first, part)
		}
		if again := do(t, n, "ip", "allocate", "web", "--in", part.String()); again != first {
			t.Errorf("allocated %s, then %s", first, again)
		}
		do(t, n, "ip", "release", "web", p.Addr().String())
	}
	other := addressOf(t, b)
	whole := do(t, a, "ip", "allocate", "web")
	if claimed := do(t, a, "ip", "claim", "web", other); claimed != other+"/12" {
		t.Errorf("claimed %s", claimed)
	}
	do(t, a, "ip", "claim", "web", other) // again
	if out, err := a.Do(testContext(t), "ip", "claim", "mail", other); cluster.ExitCode(err) != 1 {
		t.Errorf("a second owner: %v: %s", err, out)
	}
	want := []string{whole, other + "/12"}
	slices.Sort(want)
	if got := strings.Fields(do(t, a, "ip", "lookup", "web")); !slices.Equal(got, want) {
		t.Errorf("lookup: %q, want %q", got, want)
	}
	do(t, a, "ip", "release", "web", other)
	do(t, b, "ip", "claim", "mail", other)
	do(t, a, "ip", "release", "web")
	if list := do(t, a, "ip", "list"); strings.Contains(list, "web") {
		t.Errorf("after release:\n%s", list)
	}
}
