package dockerfilter_test

import (
	"log/slog"
	"strings"
	"testing"

	"weft/internal/dockerfilter"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// host is a host with a Keeper. Its chains are read with iptables, as the operator reads them.
type host struct {
	t      *testing.T
	space  *nettest.Space
	keeper *dockerfilter.Keeper
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := labtest.AddHost(t, labtest.New(t, nettest.Config{}), "a")
	return &host{t, h.Space, dockerfilter.NewKeeper("weave", slog.New(slog.DiscardHandler))}
}

// sh runs a shell command on the host, which must succeed.
func (h *host) sh(command string) string {
	h.t.Helper()
	return labtest.Run(h.t, h.space, "sh", "-c", command)
}

// wantIntact checks what Intact reports: "yes", "no" for a rule that another program removed, or "new" for a chain that is new.
func (h *host) wantIntact(want string) {
	h.t.Helper()
	err := h.space.Do(func() error {
		got := "no"
		switch intact, err := h.keeper.Intact(h.t.Context()); {
		case intact:
			got = "yes"
		case err != nil && strings.Contains(err.Error(), "Docker has made a chain"):
			got = "new"
		case err != nil:
			return err
		}
		if got != want {
			h.t.Errorf("intact: %s, want %s", got, want)
		}
		return nil
	})
	if err != nil {
		h.t.Error(err)
	}
}

func (h *host) apply() {
	h.t.Helper()
	if err := h.space.Do(func() error { return h.keeper.Apply(h.t.Context()) }); err != nil {
		h.t.Error(err)
	}
}

func (h *host) remove() {
	h.t.Helper()
	if err := h.space.Do(func() error { return dockerfilter.Remove("weave") }); err != nil {
		h.t.Error(err)
	}
}

// wantChain checks the rules of the chain in a family, as iptables prints them.
func (h *host) wantChain(tool string, want ...string) {
	h.t.Helper()
	var got []string
	for line := range strings.Lines(h.sh(tool + " -S DOCKER-USER")) {
		if rule, is := strings.CutPrefix(strings.TrimSpace(line), "-A DOCKER-USER "); is {
			got = append(got, rule)
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		h.t.Errorf("%s has\n%s\nwant\n%s", tool, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// ours is the rule, as iptables prints it.
const ours = `-i weave -o weave -m comment --comment "weft: pods on one bridge" -j ACCEPT`

// TestChain follows the rule while Docker, the operator and weft come and go.
func TestChain(t *testing.T) {
	h := newHost(t)
	h.wantIntact("yes")
	h.apply() // without Docker there is nothing to do
	if got := h.sh("nft list tables"); got != "" {
		t.Errorf("tables without Docker: %s", got)
	}
	h.remove()

	h.sh("iptables -N OTHER")
	h.wantIntact("yes") // a table without the chain

	h.sh("iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN")
	h.wantIntact("new")
	h.apply()
	h.wantIntact("yes")
	h.wantChain("iptables", ours, "-j RETURN")

	h.sh("iptables -I DOCKER-USER -s 10.32.0.9 -j DROP; iptables -A FORWARD -i weave -o weave -j DOCKER-USER")
	h.wantIntact("yes")
	h.apply() // once
	h.wantChain("iptables", "-s 10.32.0.9/32 -j DROP", ours, "-j RETURN")

	h.sh("iptables -F DOCKER-USER; iptables -A DOCKER-USER -s 10.32.0.9 -j DROP")
	h.wantIntact("no")
	h.apply()
	h.wantChain("iptables", "-s 10.32.0.9/32 -j DROP", ours)

	h.sh("ip6tables -N DOCKER-USER") // Docker from version 28: an empty chain
	h.wantIntact("new")
	h.apply()
	h.wantIntact("yes")
	h.wantChain("ip6tables", ours)

	h.sh("iptables-save > /tmp/rules.$$ && iptables-restore < /tmp/rules.$$; rm /tmp/rules.$$")
	h.wantIntact("yes")

	h.sh("ip6tables -F DOCKER-USER; ip6tables -X DOCKER-USER")
	h.wantIntact("yes")
	h.sh("ip6tables -N DOCKER-USER")
	h.wantIntact("new")
	h.apply()

	h.remove()
	h.remove()
	h.wantChain("iptables", "-s 10.32.0.9/32 -j DROP")
	h.wantChain("ip6tables")
}

// TestOtherBridge: the rules of two nodes on one host do not disturb each other.
func TestOtherBridge(t *testing.T) {
	h := newHost(t)
	h.sh("iptables -N DOCKER-USER; iptables -A DOCKER-USER -i weave2 -o weave2 -j ACCEPT")
	h.wantIntact("new")
	h.apply()
	h.wantChain("iptables", "-i weave2 -o weave2 -j ACCEPT", ours)
	h.remove()
	h.wantChain("iptables", "-i weave2 -o weave2 -j ACCEPT")
}
