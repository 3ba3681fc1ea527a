package vxlan

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"

	"sigs.k8s.io/knftables"
)

// Names in the filter's table.
const (
	setPeers    = "peers"
	fromUnknown = "unknown" // counts datagrams from addresses of no peer
	fromPods    = "pods"    // counts datagrams from the overlay
)

// filter restricts the senders that the device accepts. VXLAN has no authentication: without a filter, any host that
// reaches the port could send frames into the overlay. It is an nftables table of its own (here for IPv4):
//
//	table inet weft-weftvx {
//	    set peers { type ipv4_addr; elements = { 192.0.2.7, … } }
//	    counter unknown {}
//	    counter pods {}
//	    chain input {
//	        type filter hook input priority filter
//	        udp dport 6785 jump vxlan
//	    }
//	    chain vxlan {
//	        iifname "weave" counter name pods drop
//	        ip saddr @peers accept
//	        counter name unknown drop
//	    }
//	    chain forward {
//	        type filter hook forward priority filter
//	        iifname "weave" udp dport 6785 ip daddr @peers counter name pods drop
//	    }
//	}
//
// Two rules keep pods out: their datagrams to this host could have the source address of a peer, and their datagrams to
// a peer, masqueraded by this host, have the address of a peer. While another program has removed the table, the gate filters.
type filter struct {
	nft    knftables.Interface
	bridge string
	port   uint16
	is4    bool
}

// tableName returns the name of the table of the device called name.
func tableName(name string) string { return "weft-" + name }

// openFilter returns the filter of cfg's device in the network namespace of the calling thread. It changes nothing yet.
// The error wraps ErrNoFilter.
func openFilter(cfg Config) (*filter, error) {
	nft, err := knftables.New(knftables.InetFamily, tableName(cfg.Name))
	if err != nil {
		return nil, fmt.Errorf("vxlan: %w: install the nftables package, or use --datapath userspace: %w", ErrNoFilter, err)
	}
	return &filter{nft: nft, bridge: cfg.Bridge, port: cfg.Port, is4: cfg.Local.Is4()}, nil
}

// apply makes peers the only accepted senders, in one transaction that also restores rules that other programs removed.
// The counters keep their values.
func (f *filter) apply(ctx context.Context, peers []netip.Addr) error {
	tx := f.nft.NewTransaction()
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("weft: peers that may send to the VXLAN device")})
	setType, word := "ipv6_addr", "ip6"
	if f.is4 {
		setType, word = "ipv4_addr", "ip"
	}
	tx.Add(&knftables.Set{Name: setPeers, Type: setType})
	tx.Flush(&knftables.Set{Name: setPeers})
	for _, addr := range peers {
		tx.Add(&knftables.Element{Set: setPeers, Key: []string{addr.String()}})
	}
	for _, name := range []string{fromUnknown, fromPods} {
		tx.Add(&knftables.Counter{Name: name})
	}
	dport, pods := "udp dport "+strconv.Itoa(int(f.port)), `iifname "`+f.bridge+`"`
	f.chain(tx, "vxlan", nil,
		knftables.Concat(pods, "counter name", fromPods, "drop"),
		knftables.Concat(word, "saddr @"+setPeers, "accept"),
		knftables.Concat("counter name", fromUnknown, "drop"))
	f.chain(tx, "input", knftables.PtrTo(knftables.InputHook), knftables.Concat(dport, "jump vxlan"))
	f.chain(tx, "forward", knftables.PtrTo(knftables.ForwardHook),
		knftables.Concat(pods, dport, word, "daddr @"+setPeers, "counter name", fromPods, "drop"))
	if err := f.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("vxlan: %w: set the filter: %w", ErrNoFilter, err)
	}
	return nil
}

// chain makes these rules the only ones of the chain name, in tx. Without a hook it is a chain to jump to.
func (f *filter) chain(tx *knftables.Transaction, name string, hook *knftables.BaseChainHook, rules ...string) {
	c := &knftables.Chain{Name: name}
	if hook != nil {
		c.Type, c.Hook, c.Priority = knftables.PtrTo(knftables.FilterType), hook, knftables.PtrTo(knftables.FilterPriority)
	}
	tx.Add(c)
	tx.Flush(&knftables.Chain{Name: name})
	for _, rule := range rules {
		tx.Add(&knftables.Rule{Chain: name, Rule: rule})
	}
}

// drops returns how many datagrams the filter has dropped, by the name of the counter.
func (f *filter) drops(ctx context.Context) (map[string]uint64, error) {
	counters, err := f.nft.ListCounters(ctx)
	if err != nil {
		return nil, fmt.Errorf("vxlan: read the filter's counters: %w", err)
	}
	drops := map[string]uint64{}
	for _, c := range counters {
		if c.Packets != nil {
			drops[c.Name] = *c.Packets
		}
	}
	return drops, nil
}

// remove removes the table, if there is one.
func (f *filter) remove(ctx context.Context) error {
	tx := f.nft.NewTransaction()
	tx.Add(&knftables.Table{}) // without it the deletion fails if there is no table
	tx.Delete(&knftables.Table{})
	if err := f.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("vxlan: remove the filter: %w", err)
	}
	return nil
}
