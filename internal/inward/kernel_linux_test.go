package inward

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// world is what a Keeper knows, in memory. It implements Modes and Nodes.
type world struct {
	mode      api.InwardMode
	gateways  []ether.Addr
	published ether.Addr
}

func (w *world) Inward() api.InwardMode     { return w.mode }
func (w *world) Gateways() []ether.Addr     { return w.gateways }
func (w *world) SetGateway(addr ether.Addr) { w.published = addr }
func gateway(last byte) ether.Addr          { return ether.Addr{6, 0x57, 0, 0, 0, last} }

// newKeeper returns a Keeper for the bridge of a host.
func newKeeper(w *world) *Keeper {
	return New(Config{
		Ranges: []netip.Prefix{netip.MustParsePrefix("10.32.0.0/12"), netip.MustParsePrefix("fd32::/64")},
		Bridge: "weave", Uplinks: []string{"weft*", "other0"}, Modes: w, Nodes: w, Logger: slog.New(slog.DiscardHandler),
	})
}

// newHost returns a host with a bridge, and a function that runs in its namespace and must succeed.
func newHost(t *testing.T) (h *nettest.Host, in func(func() error)) {
	t.Helper()
	h = labtest.AddHost(t, labtest.New(t, nettest.Config{}), "a")
	labtest.Run(t, h.Space, "ip", "link", "add", "weave", "address", gateway(1).String(), "type", "bridge")
	return h, func(f func() error) {
		t.Helper()
		if err := h.Do(f); err != nil {
			t.Fatal(err)
		}
	}
}

// tables lists the tables of a host, as family and name.
func tables(t *testing.T, h *nettest.Host) (list []string) {
	t.Helper()
	for line := range strings.Lines(labtest.Run(t, h.Space, "nft", "list", "tables")) {
		list = append(list, strings.TrimSpace(strings.TrimPrefix(line, "table ")))
	}
	return list
}

// TestModes: each mode has its tables, and publishes the MAC of the bridge if clients keep their addresses.
func TestModes(t *testing.T) {
	h, in := newHost(t)
	w := &world{mode: api.InwardOff}
	k := newKeeper(w)
	for _, step := range []struct {
		mode      api.InwardMode
		gateways  []ether.Addr
		published ether.Addr
		want      string // tables
	}{
		{api.InwardOff, nil, ether.Addr{}, ""},
		{api.InwardNAT, nil, ether.Addr{}, "ip weft-inward,ip6 weft-inward"},
		{api.InwardKeep, nil, gateway(1), ""},
		{api.InwardKeep, []ether.Addr{gateway(1), {}, {1}}, gateway(1), ""}, // this node itself, and two that are no address
		{api.InwardOff, []ether.Addr{gateway(2)}, ether.Addr{}, "bridge weft-inward"},
	} {
		w.mode, w.gateways = step.mode, step.gateways
		in(func() error { return k.Apply(t.Context()) })
		if got := strings.Join(tables(t, h), ","); got != step.want || w.published != step.published {
			t.Errorf("%s with %v: tables %q, published %s; want %q and %s", step.mode, step.gateways, got, w.published, step.want, step.published)
		}
		in(func() error {
			if intact, err := k.Intact(t.Context()); !intact || err != nil {
				t.Errorf("%s: intact %v, %v", step.mode, intact, err)
			}
			return nil
		})
	}
	in(func() error { return k.Remove(t.Context()) })
	in(func() error { return k.Apply(t.Context()) }) // does nothing any more
	if got := tables(t, h); len(got) > 0 {
		t.Errorf("Remove leaves %v", got)
	}
	if len(k.Findings()) > 0 {
		t.Errorf("findings %v", k.Findings())
	}
}

// TestFlowsStay: what is remembered about connections survives other gateways and a restart of the daemon, for some minutes also the end
// of the gateway, and is removed with it.
func TestFlowsStay(t *testing.T) {
	h, in := newHost(t)
	w := &world{mode: api.InwardOff, gateways: []ether.Addr{gateway(2)}}
	k := newKeeper(w)
	in(func() error { return k.Apply(t.Context()) })
	const element = "192.0.2.1 . 10.32.0.2 . 6 . 40000 . 80"
	labtest.Run(t, h.Space, "nft", "add element bridge weft-inward flows4-065700000002 { "+element+" }")
	has := func(what string, want bool) {
		t.Helper()
		_, err := h.Run(t.Context(), "nft", "get element bridge weft-inward flows4-065700000002 { "+element+" }")
		if got := err == nil; got != want {
			t.Errorf("%s: the flow is remembered: %v, want %v", what, got, want)
		}
	}
	w.gateways = append(w.gateways, gateway(3))
	in(func() error { return k.Apply(t.Context()) })
	has("with a second gateway", true)

	w.gateways = nil
	k = newKeeper(w)
	in(func() error { return k.Apply(t.Context()) })
	has("after a restart, before other nodes are known", true)

	k.mu.Lock()
	for g := range k.seen {
		k.seen[g] = time.Now().Add(-2 * gatewayGrace)
	}
	k.mu.Unlock()
	w.gateways = []ether.Addr{gateway(3)}
	in(func() error { return k.Apply(t.Context()) })
	has("after the grace", false)
	if got := strings.Join(tables(t, h), ","); got != "bridge weft-inward" {
		t.Errorf("the tables for the other gateway are %q", got)
	}
}

// TestRepair: rules that other programs change are not intact, and Apply restores them.
func TestRepair(t *testing.T) {
	h, in := newHost(t)
	w := &world{mode: api.InwardNAT, gateways: []ether.Addr{gateway(2)}}
	k := newKeeper(w)
	intact := func() (ok bool) {
		in(func() (err error) { ok, err = k.Intact(t.Context()); return err })
		return ok
	}
	if intact() {
		t.Error("intact before Apply")
	}
	for _, line := range []string{
		"nft flush ruleset", "nft delete table ip weft-inward", "nft flush chain ip6 weft-inward postrouting",
		"nft flush chain bridge weft-inward prerouting",
	} {
		in(func() error { return k.Apply(t.Context()) })
		if !intact() {
			t.Errorf("not intact before %s", line)
		}
		labtest.Run(t, h.Space, strings.Fields(line)...)
		if intact() {
			t.Errorf("intact after %s", line)
		}
	}
	in(func() error { return k.Apply(t.Context()) })
	if len(tables(t, h)) != 3 {
		t.Errorf("tables %v", tables(t, h))
	}
}

// TestNoNFT: a host without nft has a finding where it needs rules, and only there.
func TestNoNFT(t *testing.T) {
	_, in := newHost(t)
	t.Setenv("PATH", t.TempDir())
	w := &world{mode: api.InwardOff}
	k := newKeeper(w)
	in(func() error { return k.Apply(t.Context()) })
	if len(k.Findings()) > 0 {
		t.Errorf("findings %v", k.Findings())
	}
	w.mode = api.InwardNAT
	in(func() error {
		if err := k.Apply(t.Context()); err == nil {
			t.Error("no error without nft")
		}
		return nil
	})
	if len(k.Findings()) != 1 {
		t.Errorf("findings %v", k.Findings())
	}
	in(func() error { return k.Remove(t.Context()) })
}
