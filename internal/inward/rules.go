package inward

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"

	"weft/internal/ether"
	"weft/internal/nftsum"
)

// maxFlows bounds the flows, and the pairs of addresses, that are remembered for a gateway and a family. What exceeds it is answered as
// without a gateway.
const maxFlows = 1 << 16

// How long a flow is remembered after its last packet, as connection tracking does it. A connection of TCP is established by the first
// answer of the pod after the handshake, whatever the client sends: a client outside cannot fill the sets for long. It is closed by either
// end. Most systems look after two hours whether an idle connection is alive. Pairs of addresses are for packets without ports.
const (
	ageOpen        = "3m"
	ageEstablished = "130m"
	ageClosed      = "1m"
	agePair        = "3m"
)

// Priorities of the chains: package guard drops before (-300), direct routing takes what is for its peers (-250), and br_netfilter comes
// after (0).
const afterDirect knftables.BaseChainPriority = "-240"

// Beginnings of the names of sets and chains, before the number of the family and the MAC.
const (
	setFlows     = "flows"
	setPairs     = "pairs"
	chainLearn   = "learn"
	chainBack    = "back"
	chainAnswers = "answers" // without a MAC
	chainPre     = "prerouting"
	chainPost    = "postrouting"
)

// family has the words of nft for a family of addresses.
type family struct {
	is4          bool
	number       string
	word, key    string
	table        knftables.Family
	sum          nftsum.Family
	unfragmented string // matches packets with ports
	fragment     string // matches parts of packets, which may lack them
}

var families = []family{
	{is4: true, number: "4", word: "ip", key: "ipv4_addr", table: knftables.IPv4Family, sum: nftsum.IPv4,
		unfragmented: "ip frag-off & 0x1fff == 0", fragment: "ip frag-off & 0x1fff != 0"},
	{number: "6", word: "ip6", key: "ipv6_addr", table: knftables.IPv6Family, sum: nftsum.IPv6, unfragmented: "exthdr frag missing",
		fragment: "exthdr frag exists"},
}

// nft runs the nft program in the network namespace of the calling thread.
type nft struct {
	bridge knftables.Interface
	nat    []knftables.Interface // by family
}

// newNFT returns the rules of this host, and changes none. The error wraps ErrNoNFT.
func newNFT() (*nft, error) {
	n := &nft{}
	for _, f := range families {
		nat, err := knftables.New(f.table, Table)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoNFT, err)
		}
		n.nat = append(n.nat, nat)
	}
	var err error
	if n.bridge, err = knftables.New(knftables.BridgeFamily, Table); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNFT, err)
	}
	return n, nil
}

// apply makes the tables those of r. Flows of gateways that stay are kept. A table without rules is removed.
func (n *nft) apply(ctx context.Context, r Ruleset) error {
	if err := r.Validate(); err != nil {
		return err
	}
	for i, f := range families {
		if len(r.ranges(f)) == 0 {
			continue // the kernel may lack the family
		}
		if err := n.nat[i].Run(ctx, natTransaction(n.nat[i], f, r)); err != nil {
			return fmt.Errorf("inward: set rules: %w", err)
		}
	}
	known, err := n.gateways(ctx)
	if err != nil {
		return err
	}
	gone := slices.DeleteFunc(known, func(g ether.Addr) bool { return slices.Contains(r.Gateways, g) })
	if err := n.bridge.Run(ctx, bridgeTransaction(n.bridge, r, gone)); err != nil {
		return fmt.Errorf("inward: set rules of the bridge: %w", err)
	}
	return nil
}

// remove removes all tables. It succeeds if there are none.
func (n *nft) remove(ctx context.Context) error {
	var errs []error
	for _, table := range append([]knftables.Interface{n.bridge}, n.nat...) {
		tx := table.NewTransaction()
		removeTable(tx)
		if err := table.Run(ctx, tx); err != nil {
			errs = append(errs, fmt.Errorf("inward: remove rules: %w", err))
		}
	}
	return errors.Join(errs...)
}

// gateways returns those that the table of the bridge has.
func (n *nft) gateways(ctx context.Context) (list []ether.Addr, err error) {
	names, err := n.bridge.List(ctx, "sets")
	if err != nil && !knftables.IsNotFound(err) {
		return nil, fmt.Errorf("inward: read the rules of the bridge: %w", err)
	}
	for _, name := range names {
		text, ok := strings.CutPrefix(name, setFlows+families[0].number+"-")
		raw, err := hex.DecodeString(text)
		if ok && err == nil && len(raw) == len(ether.Addr{}) {
			list = append(list, ether.Addr(raw))
		}
	}
	return list, nil
}

// absent reports whether the host has none of the tables. It starts no program.
func absent() bool {
	for _, f := range []nftsum.Family{nftsum.Bridge, nftsum.IPv4, nftsum.IPv6} {
		if _, err := nftsum.Of(f, Table); !errors.Is(err, nftsum.ErrNoTable) {
			return false
		}
	}
	return true
}

// sums returns the checksums of the tables that r needs.
func sums(r Ruleset) (list []nftsum.Sum, err error) {
	add := func(f nftsum.Family) {
		sum, sumErr := nftsum.Of(f, Table)
		list, err = append(list, sum), errors.Join(err, sumErr)
	}
	if r.Masquerade {
		for _, f := range families {
			if len(r.ranges(f)) > 0 {
				add(f.sum)
			}
		}
	}
	if len(r.Gateways) > 0 {
		add(nftsum.Bridge)
	}
	return list, err
}

// removeTable removes the table of a transaction, if it is there.
func removeTable(tx *knftables.Transaction) {
	tx.Add(&knftables.Table{}) // Delete fails if there is no table
	tx.Delete(&knftables.Table{})
}

// natTransaction masks the addresses of clients.
func natTransaction(table knftables.Interface, f family, r Ruleset) *knftables.Transaction {
	tx := table.NewTransaction()
	removeTable(tx)
	ranges := r.ranges(f)
	if !r.Masquerade || len(ranges) == 0 {
		return tx
	}
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("weft: clients outside of the overlay get the address of this host")})
	tx.Add(&knftables.Chain{
		Name: chainPost, Type: knftables.PtrTo(knftables.NATType), Hook: knftables.PtrTo(knftables.PostroutingHook),
		Priority: knftables.PtrTo(knftables.SNATPriority),
	})
	inside := braces(ranges)
	routed := "" // where the kernel cannot show it, what br_netfilter makes of bridged packets is masked as well
	if r.ShowsInput {
		routed = "iifname != " + quote(r.Bridge)
	}
	tx.Add(&knftables.Rule{Chain: chainPost, Rule: knftables.Concat(
		routed, "oifname", quote(r.Bridge), f.word, "saddr !=", inside, f.word, "daddr", inside, "masquerade fully-random",
	)})
	return tx
}

// bridgeTransaction sends the answers to clients of gateways back to these. gone are gateways that the table still has.
func bridgeTransaction(table knftables.Interface, r Ruleset, gone []ether.Addr) *knftables.Transaction {
	tx := table.NewTransaction()
	if len(r.Gateways) == 0 {
		removeTable(tx)
		return tx
	}
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("weft: answers to clients outside of the overlay go back to their gateway")})
	var pre []string
	for _, f := range families {
		if len(r.ranges(f)) > 0 {
			pre = append(pre, learnRules(f, r)...)
		}
	}
	for _, name := range r.Uplinks {
		pre = append(pre, "iifname "+quote(name)+" accept")
	}
	for _, f := range families {
		var answers []string
		for _, g := range r.Gateways {
			addGateway(tx, f, g)
			answers = append(answers, "jump "+nameOf(chainBack, f, g))
		}
		setChain(tx, chainAnswers+f.number, answers...)
		if inside := braces(r.ranges(f)); len(r.ranges(f)) > 0 {
			pre = append(pre, knftables.Concat("ether daddr", r.MAC.String(), "ether type", f.word, f.word, "saddr", inside,
				f.word, "daddr !=", inside, "jump", chainAnswers+f.number))
		}
	}
	tx.Add(&knftables.Chain{
		Name: chainPre, Type: knftables.PtrTo(knftables.FilterType), Hook: knftables.PtrTo(knftables.PreroutingHook),
		Priority: knftables.PtrTo(afterDirect),
	})
	setChain(tx, chainPre, pre...)
	for _, f := range families {
		for _, g := range gone {
			removeGateway(tx, f, g)
		}
	}
	return tx
}

// learnRules returns the rules that send what comes from gateways to the chains that remember it.
func learnRules(f family, r Ruleset) (rules []string) {
	var verdicts []string
	for _, g := range r.Gateways {
		verdicts = append(verdicts, g.String()+" : goto "+nameOf(chainLearn, f, g))
	}
	inside := braces(r.ranges(f))
	for _, name := range r.Uplinks {
		rules = append(rules, knftables.Concat("iifname", quote(name), "ether type", f.word, f.word, "saddr !=", inside, f.word, "daddr", inside,
			"ether saddr vmap", braces(verdicts)))
	}
	return rules
}

// addGateway adds the sets and the chains of a gateway. Elements that the sets have stay.
func addGateway(tx *knftables.Transaction, f family, g ether.Addr) {
	flows, pairs := nameOf(setFlows, f, g), nameOf(setPairs, f, g)
	for name, kind := range map[string]string{
		flows: f.key + " . " + f.key + " . inet_proto . inet_service . inet_service", pairs: f.key + " . " + f.key,
	} {
		tx.Add(&knftables.Set{Name: name, Type: kind, Size: knftables.PtrTo(uint64(maxFlows)),
			Flags: []knftables.SetFlag{knftables.DynamicFlag, knftables.TimeoutFlag}})
	}
	// A client first, then a pod: from a client as the packet has it, from a pod reversed.
	forth := f.word + " saddr . " + f.word + " daddr"
	back := f.word + " daddr . " + f.word + " saddr"
	key := forth + " . meta l4proto . th sport . th dport"
	setChain(tx, nameOf(chainLearn, f, g),
		remember("update", pairs, forth, agePair),
		"meta l4proto 6 "+remember("add", flows, key, ageOpen),
		"meta l4proto 17 "+remember("update", flows, key, ageOpen),
		"tcp flags & (fin | rst) != 0 "+remember("update", flows, key, ageClosed),
	)
	flow := back + " . meta l4proto . th dport . th sport"
	setChain(tx, nameOf(chainBack, f, g),
		knftables.Concat("meta l4proto { 6, 17 }", f.unfragmented, flow, "!= @"+flows, "return"),
		// Answers without ports: other protocols, errors of ICMP, and further fragments.
		"meta l4proto != { 6, 17 } "+back+" != @"+pairs+" return",
		f.fragment+" "+back+" != @"+pairs+" return",
		remember("update", pairs, back, agePair),
		"meta l4proto 17 "+f.unfragmented+" "+remember("update", flows, flow, ageOpen),
		"tcp flags & (syn | ack) == ack "+remember("update", flows, flow, ageEstablished),
		"tcp flags & (fin | rst) != 0 "+remember("update", flows, flow, ageClosed),
		"ether daddr set "+g.String()+" accept",
	)
}

// removeGateway removes the sets and chains of a gateway, which no chain uses any more.
func removeGateway(tx *knftables.Transaction, f family, g ether.Addr) {
	for _, begin := range []string{chainLearn, chainBack} {
		setChain(tx, nameOf(begin, f, g))
		tx.Delete(&knftables.Chain{Name: nameOf(begin, f, g)})
	}
	for _, begin := range []string{setFlows, setPairs} {
		tx.Delete(&knftables.Set{Name: nameOf(begin, f, g)})
	}
}

// setChain makes these rules the only ones of a chain.
func setChain(tx *knftables.Transaction, name string, rules ...string) {
	if name != chainPre {
		tx.Add(&knftables.Chain{Name: name})
	}
	tx.Flush(&knftables.Chain{Name: name})
	for _, rule := range rules {
		tx.Add(&knftables.Rule{Chain: name, Rule: rule})
	}
}

// remember returns the statement that puts an element into a set.
func remember(verb, set, key, age string) string {
	return verb + " @" + set + " { " + key + " timeout " + age + " }"
}

// nameOf returns the name of a set or a chain of a gateway.
func nameOf(begin string, f family, g ether.Addr) string {
	return begin + f.number + "-" + hex.EncodeToString(g[:])
}

// braces returns the syntax of an anonymous set or map.
func braces(elements []string) string { return "{ " + strings.Join(elements, ", ") + " }" }

// quote returns a name in the syntax of nft.
func quote(name string) string { return `"` + name + `"` }
