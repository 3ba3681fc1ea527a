package nftsum_test

import (
	"errors"
	"testing"

	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
	"weft/internal/nftsum"
)

const ruleset = `table inet t {
	set s { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.2 }; }
	counter c {}
	chain in { type filter hook input priority 0; jump other; }
	chain other { ip saddr @s accept; counter name c drop; }
}`

// TestOf: a table that is made again has the same checksum, and each change of it another one.
func TestOf(t *testing.T) {
	h := labtest.AddHost(t, labtest.New(t, nettest.Config{}), "host")
	nft := func(line string) { labtest.Run(t, h.Space, "nft", line) }
	sum := func() (s nftsum.Sum, err error) {
		err = h.Do(func() (err error) { s, err = nftsum.Of(nftsum.Inet, "t"); return err })
		return s, err
	}
	if _, err := sum(); !errors.Is(err, nftsum.ErrNoTable) {
		t.Errorf("without a table: %v", err)
	}
	nft(ruleset)
	want, err := sum()
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []string{
		"add rule inet t in accept", "flush chain inet t other", "flush set inet t s", "add element inet t s { 192.0.2.3 }",
		"add chain inet t in { policy drop; }", "add table inet t { flags dormant; }", "insert rule inet t other drop",
		"add chain inet t more", "flush table inet t", "flush ruleset; add table inet t",
	} {
		nft("flush ruleset; " + ruleset)
		if got, err := sum(); err != nil || got != want {
			t.Errorf("made again before %q: the checksum differs, %v", change, err)
		}
		nft("add table inet other")
		nft("add rule inet t in counter name c") // and remove it again: other handles
		nft("flush chain inet t in; add rule inet t in jump other")
		if got, err := sum(); err != nil || got != want {
			t.Errorf("with other handles: the checksum differs, %v", err)
		}
		nft(change)
		if got, err := sum(); err != nil || got == want {
			t.Errorf("%s: the checksum is the same, %v", change, err)
		}
	}
}

// TestOfDynamicSet: elements of a set that rules change are not part of the checksum.
func TestOfDynamicSet(t *testing.T) {
	h := labtest.AddHost(t, labtest.New(t, nettest.Config{}), "host")
	labtest.Run(t, h.Space, "nft", `table inet t {
		set d { type ipv4_addr; size 10; flags dynamic,timeout; timeout 1h; }
		chain in { type filter hook input priority 0; update @d { ip saddr }; }
	}`)
	var sums []nftsum.Sum
	for range 2 {
		err := h.Do(func() error {
			s, err := nftsum.Of(nftsum.Inet, "t")
			sums = append(sums, s)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		labtest.Run(t, h.Space, "nft", "add element inet t d { 192.0.2.1 }")
	}
	if sums[0] != sums[1] {
		t.Error("the checksum differs after a rule has added an element")
	}
}
