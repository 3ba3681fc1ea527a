package vxlan

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"sigs.k8s.io/knftables"

	"weft/internal/ether"
)

// Sets of addresses in the filter's table. Their names end with the family, as a table that an earlier run left may have the other one.
const (
	setPeers    = "peers"
	setReceived = "received" // counts what came from each peer
	setSent     = "sent"     // counts what went to each peer
	setPairs    = "pairs"    // addresses and ports of the peers of pairs
	setExpected = "expected" // addresses from which a pair may be begun
)

// Counters in the filter's table: datagrams to the port of a VXLAN device that were dropped.
const (
	fromUnknown   = "unknown"   // to this host, from addresses of no peer
	fromPods      = "pods"      // from the overlay, to this host or to a peer
	fromUsers     = "users"     // to this host, from a port that any user of a host may have
	foreignVNI    = "vni"       // to this host, from the address of a peer, with another VNI
	fromTunnel    = "tunnel"    // through the tunnel, in either direction, other than VXLAN of this host
	fromForwarded = "forwarded" // to a peer, from a network behind this host
	fromLocal     = "local"     // to a peer, from an unprivileged user of this host
)

// FilterReasons returns why the filter drops datagrams, sorted.
func FilterReasons() []string {
	return []string{fromForwarded, fromLocal, fromPods, fromTunnel, fromUnknown, fromUsers, foreignVNI}
}

// filter restricts the senders that the device accepts, and those that may send to a peer with the address of this host. VXLAN has no
// authentication: without a filter, any host that reaches the port could send frames into the overlay. It is an nftables table of its
// own (here for IPv4):
//
//	table inet weft-weftvx {
//	    set peers4 { type ipv4_addr; elements = { 192.0.2.7, … } }
//	    set received4, sent4 { type ipv4_addr; flags dynamic; size 65536 }
//	    counter … {}
//	    chain input {
//	        type filter hook input priority filter
//	        udp dport 6785 jump vxlan
//	    }
//	    chain vxlan {
//	        iifname "weave" counter name pods drop
//	        ip saddr != @peers4 counter name unknown drop
//	        udp sport != 512-1023 counter name users drop
//	        @th,96,24 != 0xabcdef counter name vni drop
//	        update @received4 { ip saddr counter }
//	    }
//	    chain forward {
//	        type filter hook forward priority filter
//	        udp dport 6785 ip daddr @peers4 jump outside
//	    }
//	    chain outside {
//	        iifname "weave" counter name pods drop
//	        ip saddr != @peers4 counter name forwarded drop
//	    }
//	    chain output {
//	        type filter hook output priority filter
//	        udp dport 6785 ip daddr @peers4 jump local
//	    }
//	    chain local {
//	        udp sport != 512-1023 counter name local drop
//	        update @sent4 { ip daddr counter }
//	    }
//	}
//
// Datagrams of pods to this host could have the source address of a peer. What pods and other guests of this host send to a peer gets,
// where the host masquerades, the address of a peer after the hook forward. An unprivileged user of a host has no source port below
// 1024.
//
// With pairs (carrier.Pair) there are more sets and rules, for both families: datagrams from the address and port of a peer of a pair come
// in with any VNI but the common one, and the beginnings of probes from the expected addresses go to a log group before they are dropped. A
// peer lets in what comes from the port of this device, which no program can have beside the device; of others that is dropped on its way.
// Datagrams from other ports to the address and port of a peer are not of the overlay: the peer may have named them.
//
//	chain vxlan {
//	    …
//	    ip saddr . udp sport @pairs4 goto pair
//	    ip saddr @expected4 @th,224,16 0x88b5 limit rate 100/second burst 100 packets log group 39551 snaplen 126
//	    …
//	}
//
// The owner of the socket (meta skuid) does not distinguish them: datagrams of the device have the one of the inner packet, if that
// comes from the host. The device accepts its VNI alone; the rule counts the others. While another program has removed the table,
// the gate filters what comes in.
//
// With a tunnel below the device, it also drops what comes to the port from elsewhere, and whatever else goes through the tunnel.
type filter struct {
	nft    knftables.Interface
	bridge string
	under  string // empty: no tunnel
	port   uint16
	group  uint16 // of the log; 0: there are no pairs
	vni    uint32
	is4    bool
}

// senders are those that the filters let in.
type senders struct {
	peers    []netip.Addr     // from privileged ports
	pairs    []netip.AddrPort // of the peers of pairs
	expected []netip.Addr     // from where a pair may be begun: they are logged, and not let in
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
	return &filter{
		nft: nft, bridge: cfg.Bridge, under: cfg.Under, port: cfg.Port, group: cfg.Group, vni: cfg.VNI, is4: cfg.Local.Is4(),
	}, nil
}

// apply makes s the only accepted senders, in one transaction that also restores rules that other programs removed.
// The counters keep their values.
func (f *filter) apply(ctx context.Context, s senders) error {
	tx := f.nft.NewTransaction()
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("weft: peers that may send to the VXLAN device")})
	setType := addrType(f.is4)
	tx.Add(&knftables.Set{Name: f.set(setPeers), Type: setType})
	for _, name := range []string{setReceived, setSent} {
		tx.Add(&knftables.Set{
			Name: f.set(name), Type: setType, Flags: []knftables.SetFlag{knftables.DynamicFlag}, Size: knftables.PtrTo[uint64](maxEntries),
		})
	}
	tx.Flush(&knftables.Set{Name: f.set(setPeers)})
	for _, addr := range s.peers {
		tx.Add(&knftables.Element{Set: f.set(setPeers), Key: []string{addr.String()}})
	}
	if f.group != 0 {
		addPairs(tx, s)
	}
	for _, name := range FilterReasons() {
		tx.Add(&knftables.Counter{Name: name})
	}
	f.addChains(tx)
	if err := f.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("vxlan: %w: set the filter: %w", ErrNoFilter, err)
	}
	return nil
}

// addPairs adds the sets of pairs.
func addPairs(tx *knftables.Transaction, s senders) {
	for _, is4 := range []bool{true, false} {
		pairs, expected := setOf(setPairs, is4), setOf(setExpected, is4)
		tx.Add(&knftables.Set{Name: pairs, Type: addrType(is4) + " . inet_service"})
		tx.Add(&knftables.Set{Name: expected, Type: addrType(is4)})
		tx.Flush(&knftables.Set{Name: pairs})
		tx.Flush(&knftables.Set{Name: expected})
	}
	for _, p := range s.pairs {
		tx.Add(&knftables.Element{Set: setOf(setPairs, p.Addr().Is4()), Key: []string{p.Addr().String(), strconv.Itoa(int(p.Port()))}})
	}
	for _, addr := range s.expected {
		tx.Add(&knftables.Element{Set: setOf(setExpected, addr.Is4()), Key: []string{addr.String()}})
	}
}

// set returns the name of a set for the family of the peers.
func (f *filter) set(name string) string { return setOf(name, f.is4) }

// setOf returns the name of a set for a family.
func setOf(name string, is4 bool) string {
	if is4 {
		return name + "4"
	}
	return name + "6"
}

// addrType returns the type of addresses of a family in nftables, and addrWord the protocol in its expressions.
func addrType(is4 bool) string {
	if is4 {
		return "ipv4_addr"
	}
	return "ipv6_addr"
}

func addrWord(is4 bool) string {
	if is4 {
		return "ip"
	}
	return "ip6"
}

// addChains adds the rules.
func (f *filter) addChains(tx *knftables.Transaction) {
	word := addrWord(f.is4)
	count := func(set, addr string) string {
		return knftables.Concat("update", "@"+f.set(set), "{", word, addr, "counter", "}")
	}
	drop := func(match, counter string) string { return knftables.Concat(match, "counter name", counter, "drop") }
	dport := "udp dport " + strconv.Itoa(int(f.port))
	toPeer := knftables.Concat(dport, word, "daddr @"+f.set(setPeers))
	pods, notPeer := `iifname "`+f.bridge+`"`, word+" saddr != @"+f.set(setPeers)
	unprivileged := fmt.Sprintf("udp sport != %d-%d", FirstPrivileged, LastPrivileged)
	into := []string{
		drop(pods, fromPods), drop(notPeer, fromUnknown), drop(unprivileged, fromUsers), drop(notVNI(f.vni), foreignVNI),
		count(setReceived, "saddr"),
	}
	input := []string{knftables.Concat(dport, "jump vxlan")}
	if f.group != 0 {
		into = slices.Concat(into[:1], f.fromPairs(), into[1:])
		f.chain(tx, "pair", nil, drop(fmt.Sprintf("@th,96,24 0x%06x", f.vni), foreignVNI))
		ours := fmt.Sprintf("udp sport %d", f.port)
		f.chain(tx, "to-pair", nil, knftables.Concat(ours, "accept"))
		f.chain(tx, "through-pair", nil, drop(knftables.Concat(pods, ours), fromPods), drop(ours, fromForwarded))
	}
	if f.under != "" {
		into = append([]string{drop(`iifname != "`+f.under+`"`, fromUnknown)}, into...)
		input = append(input, drop(knftables.Concat(`iifname "`+f.under+`"`, "udp dport !=", strconv.Itoa(int(f.port))), fromTunnel),
			drop(`iifname "`+f.under+`" meta l4proto != 17`, fromTunnel))
	}
	f.chain(tx, "vxlan", nil, into...)
	forward, output := []string{knftables.Concat(toPeer, "jump outside")}, []string{knftables.Concat(toPeer, "jump local")}
	if f.under != "" {
		through := `oifname "` + f.under + `"`
		forward = append([]string{drop(`iifname "`+f.under+`"`, fromTunnel), drop(through, fromTunnel)}, forward...)
		output = append(output, drop(knftables.Concat(through, "udp dport !=", strconv.Itoa(int(f.port))), fromTunnel),
			drop(through+" meta l4proto != 17", fromTunnel))
	}
	if f.group != 0 {
		for _, is4 := range []bool{true, false} {
			toPair := knftables.Concat(addrWord(is4), "daddr . udp dport @"+setOf(setPairs, is4))
			forward = append([]string{knftables.Concat(toPair, "jump through-pair")}, forward...)
			output = append([]string{knftables.Concat(toPair, "jump to-pair")}, output...)
		}
	}
	f.chain(tx, "outside", nil, drop(pods, fromPods), drop(notPeer, fromForwarded))
	f.chain(tx, "input", knftables.PtrTo(knftables.InputHook), input...)
	f.chain(tx, "forward", knftables.PtrTo(knftables.ForwardHook), forward...)
	f.chain(tx, "local", nil, drop(unprivileged, fromLocal), count(setSent, "daddr"))
	f.chain(tx, "output", knftables.PtrTo(knftables.OutputHook), output...)
}

// fromPairs returns the rules for datagrams of peers of pairs, and of those that begin one. What comes from the other family is of no
// other peer.
func (f *filter) fromPairs() (rules []string) {
	for _, is4 := range []bool{true, false} {
		word := addrWord(is4)
		rules = append(rules, knftables.Concat(word, "saddr . udp sport @"+setOf(setPairs, is4), "goto pair"),
			knftables.Concat(word, "saddr @"+setOf(setExpected, is4), isProbe, "limit rate 100/second burst 100 packets log group",
				strconv.Itoa(int(f.group)), "snaplen", strconv.Itoa(helloLen)))
	}
	family := "ipv4"
	if f.is4 {
		family = "ipv6"
	}
	return append(rules, knftables.Concat("meta nfproto", family, "counter name", fromUnknown, "drop"))
}

// isProbe matches datagrams with a probe: the type of the frame in them is behind the headers of UDP and VXLAN and two addresses.
var isProbe = fmt.Sprintf("@th,%d,16 0x%04x", 8*(udpHeaderLen+headerLen+2*len(ether.Addr{})), probeType)

// notVNI matches datagrams of another VNI, which is 32 bits after the header of UDP of 64 bits (RFC 7348, section 5).
func notVNI(vni uint32) string { return fmt.Sprintf("@th,96,24 != 0x%06x", vni) }

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
