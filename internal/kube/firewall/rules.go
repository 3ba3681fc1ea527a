package firewall

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"sigs.k8s.io/knftables"

	"weft/internal/kube/policy"
)

var directions = [...]policy.Direction{policy.Ingress, policy.Egress}

// counterOf returns the name of the counter of packets that are dropped in a direction, dropOf that of the chain that drops them,
// and denyOf that of the chain that drops them unless they belong to an open connection.
func counterOf(d policy.Direction) string { return "dropped-" + d.String() }
func dropOf(d policy.Direction) string    { return "drop-" + d.String() }
func denyOf(d policy.Direction) string    { return "deny-" + d.String() }

// Names of further chains of the inet table.
const (
	marked    = "marked"
	judge     = "judge"
	midstream = "midstream"
)

// neighbors accepts the ICMPv6 types that neighbor discovery needs. Connection tracking ignores them, so the rule for replies
// does not match them.
const neighbors = "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect, " +
	"mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept"

// notFirst match packets that cannot open a connection: TCP segments of an open connection, SCTP packets without an INIT chunk
// (chunk type 1, which is never bundled: RFC 9260, section 6.10).
var notFirst = [...]string{"tcp flags & (syn | ack) == ack", "meta l4proto 132 @th,96,8 != 1"}

// whole returns the transaction that replaces both tables by t, with the elements of r.
func (n *NFT) whole(t *table, r *policy.Ruleset) *transaction {
	tx := &transaction{Transaction: n.nft.NewTransaction(), program: true}
	b := batch{tx, knftables.InetFamily}
	b.replaceTable("weft: network policies; written by weft-kube, which undoes other changes")
	for _, f := range families {
		b.add(&knftables.Set{Name: f.self(), Type: f.addr + " . " + f.addr})
		b.add(&knftables.Set{Name: f.askers(), Type: f.addr})
		for _, d := range directions {
			b.add(&knftables.Map{Name: f.podsOf(d), Type: f.addr + " : verdict"})
			b.add(&knftables.Map{Name: f.reversed(d), Type: f.addr + " : verdict"})
			b.add(&knftables.Map{Name: f.marksOf(d), Type: "mark : verdict"})
		}
	}
	for _, d := range directions {
		addDrop(b, d)
	}
	addMidstream(b)
	for _, d := range directions {
		addDeny(b, d)
	}
	addJudge(b)
	b.chain(marked,
		setMark(unjudged, 0),
		neighbors,
		knftables.Concat(has(ingressMask), "fib daddr type { broadcast, multicast, anycast } goto", judge)) // such packets are no replies
	forward := []string{
		knftables.Concat(has(allMarks), "jump", marked),
		"ct direction reply accept",
		"ct state related accept",
		neighbors,
	}
	forward = append(forward, knftables.Concat(has(ingressMask|egressMask), "goto", judge))
	for _, f := range families {
		forward = append(forward, knftables.Concat(f.word, "saddr .", f.word, "daddr @", f.self(), "accept"))
	}
	b.hook("forward", knftables.ForwardHook, knftables.FilterPriority, append(forward, "goto "+judge)...)
	wholeBridge(batch{tx, knftables.BridgeFamily})
	c := policy.Change{Sets: map[string]policy.Elements{}}
	for name, set := range r.Sets {
		c.Sets[name] = policy.Elements{Added: set.Prefixes}
	}
	for _, ip := range r.Addrs {
		c.Addrs.Added = append(c.Addrs.Added, netip.PrefixFrom(ip, ip.BitLen()))
	}
	addChange(tx, &table{}, t, c)
	return tx
}

// addDrop adds the chain that counts, samples and drops packets.
func addDrop(b batch, d policy.Direction) {
	b.add(&knftables.Counter{Name: counterOf(d)})
	b.chain(dropOf(d),
		`counter name "`+counterOf(d)+`"`,
		fmt.Sprintf(`limit rate 10/second log prefix "%s" group %d snaplen 128`, d, LogGroup),
		"drop")
}

// addDeny adds the chain for packets that the policies of a direction deny. A packet that goes on in an open connection is judged
// once more as one from the server to the client: connection tracking mistakes the server for the client when it has lost the
// connection (conntrack -F, a full table) and the server sends first.
func addDeny(b batch, d policy.Direction) {
	rules := []string{knftables.Concat(has(ingressMask|egressMask), "goto", dropOf(d))}
	for _, match := range notFirst {
		rules = append(rules, knftables.Concat(match, "goto", midstream))
	}
	b.chain(denyOf(d), append(rules, "goto "+dropOf(d))...)
}

// addMidstream adds the chain that decides whether policies allow the connection in the other direction.
func addMidstream(b batch) {
	var rules []string
	for _, f := range families {
		rules = append(rules,
			knftables.Concat(f.word, "daddr vmap @", f.reversed(policy.Egress)),
			knftables.Concat(f.word, "saddr vmap @", f.reversed(policy.Ingress)))
	}
	b.chain(midstream, append(rules, "accept")...)
}

// addJudge adds the chain that decides a packet by the policies of both ends.
func addJudge(b batch) {
	var rules []string
	for _, f := range families {
		rules = append(rules,
			knftables.Concat(f.word, "saddr vmap @", f.podsOf(policy.Egress)),
			knftables.Concat(f.word, "daddr vmap @", f.podsOf(policy.Ingress)))
	}
	for _, f := range families {
		for _, d := range directions {
			mask := fieldOf(d).mask
			rules = append(rules, knftables.Concat(has(mask), "meta nfproto", f.proto,
				fmt.Sprintf("meta mark & %#x vmap @%s", mask, f.marksOf(d))))
		}
	}
	b.chain(judge, append(rules, knftables.Concat(`meta oifkind "bridge"`, setMark(0, routed)))...)
}

// change returns the transaction that changes the tables from old to t, and elements by c.
func (n *NFT) change(old, t *table, c policy.Change) *transaction {
	tx := &transaction{Transaction: n.nft.NewTransaction()}
	addChange(tx, old, t, c)
	return tx
}

// addChange adds new sets and chains, then points pods to them, and last removes unreferenced chains and sets.
func addChange(tx *transaction, old, t *table, c policy.Change) {
	b := batch{tx, knftables.InetFamily}
	if old != t {
		for _, name := range missing(t.sets, old.sets) {
			b.addSet(name, t.sets[name])
		}
	}
	b.changeSets(t, c.Sets)
	if old != t {
		remove := b.changeChains(old.chains, t.chains)
		b.changeElements(old.elements, t.elements)
		changeAnswers(b, old.resolvers, t.resolvers)
		remove()
		for _, name := range missing(old.sets, t.sets) {
			b.delSet(name)
		}
	}
	bridge := batch{tx, knftables.BridgeFamily}
	for _, f := range families {
		bridge.changeSet(f, f.everyPod(), false, c.Addrs)
	}
	if old != t {
		changeBridge(bridge, old.links, t.links)
	}
}

// changeSets changes the elements of sets of addresses that t has.
func (b batch) changeSets(t *table, sets map[string]policy.Elements) {
	for _, name := range sortedKeys(sets) {
		for _, f := range families {
			if set, ok := t.sets[f.set(name)]; ok {
				b.changeSet(f, f.set(name), set.interval, sets[name])
			}
		}
	}
}

// missing returns the keys of a that b lacks, sorted.
func missing[A, B any](a map[string]A, b map[string]B) (out []string) {
	for k := range a {
		if _, ok := b[k]; !ok {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
