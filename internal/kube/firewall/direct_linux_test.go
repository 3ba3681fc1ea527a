package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/knftables"

	"weft/internal/kube/policy"
	"weft/internal/kube/policy/policytest"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// space is a network namespace with a firewall that counts how it changes the rules.
type space struct {
	*nettest.Host
	fw               *NFT
	direct, programs int
}

func newSpace(t testing.TB, l *nettest.Lab, name string) *space {
	t.Helper()
	s := &space{Host: labtest.AddHost(t, l, name)}
	s.do(t, func() (err error) { s.fw, err = New(t.Context()); return err })
	t.Cleanup(func() { _ = s.fw.Close() })
	s.fw.direct = func(steps []step) error { s.direct++; return s.fw.kernel.run(steps) }
	s.fw.nft = counting{s.fw.nft, &s.programs}
	return s
}

// counting counts the runs of the nft program.
type counting struct {
	knftables.Interface
	runs *int
}

func (c counting) Run(ctx context.Context, tx *knftables.Transaction) error {
	*c.runs++
	return c.Interface.Run(ctx, tx)
}

func (s *space) do(t testing.TB, f func() error) {
	t.Helper()
	if err := s.Do(f); err != nil {
		t.Fatal(err)
	}
}

func (s *space) apply(t testing.TB, r *policy.Ruleset) {
	t.Helper()
	s.do(t, func() error { return s.fw.Apply(t.Context(), r) })
}

// change makes the firewall change to r by a transaction that must go to the kernel directly.
func (s *space) change(t *testing.T, c policy.Change) {
	t.Helper()
	before := s.programs
	s.do(t, func() error { return s.fw.Change(t.Context(), c) })
	if s.programs != before {
		t.Error("the nft program has changed the rules")
	}
}

var (
	anonymousSets = regexp.MustCompile(`__(set|map)\d+`)
	ruleHeader    = regexp.MustCompile(`^(?:inet|bridge) ` + Table + ` (\S+) \d+(?: \d+)?$`)
)

// listing returns what the nft program lists for each chain, set and map of both tables: its text, and the expressions of its rules.
func (s *space) listing(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, f := range tableFamilies {
		object := ""
		list := labtest.Run(t, s.Space, "nft", "-s", "--debug=netlink", "list", "table", string(f), Table)
		for line := range strings.Lines(anonymousSets.ReplaceAllString(list, "$1")) {
			line = strings.TrimRight(line, " \n")
			switch header := ruleHeader.FindStringSubmatch(line); {
			case header != nil:
				object, line = "expressions of "+header[1], "rule"
			case strings.HasSuffix(line, "{"):
				object = line
			case line == "" || line == "}" || strings.HasPrefix(line, string(f)+" "):
				object = ""
			}
			if object != "" {
				out[string(f)+" "+object] += line + "\n"
			}
		}
	}
	return out
}

// equalListings compares what the nft program lists for two firewalls.
func equalListings(t *testing.T, what string, direct, program *space) {
	t.Helper()
	if diff := cmp.Diff(program.listing(t), direct.listing(t)); diff != "" {
		t.Fatalf("%s: rules by the nft program (-) and directly (+):\n%s", what, diff)
	}
}

// difference returns the Change between two rulesets.
func difference(from, to *policy.Ruleset) policy.Change {
	c := policy.Change{Rules: to, Sets: map[string]policy.Elements{}}
	elements := func(from, to []netip.Prefix) policy.Elements {
		without := func(a, b []netip.Prefix) []netip.Prefix {
			return slices.DeleteFunc(slices.Clone(a), func(p netip.Prefix) bool { return slices.Contains(b, p) })
		}
		return policy.Elements{Added: without(to, from), Removed: without(from, to)}
	}
	for name, set := range to.Sets {
		c.Sets[name] = elements(from.Sets[name].Prefixes, set.Prefixes)
	}
	addrs := func(list []netip.Addr) (out []netip.Prefix) {
		for _, ip := range list {
			out = append(out, netip.PrefixFrom(ip, ip.BitLen()))
		}
		return out
	}
	c.Addrs = elements(addrs(from.Addrs), addrs(to.Addrs))
	return c
}

// hooked returns the ruleset of a node with all base chains, which only the nft program makes: that of one port, and with the
// set of DNS servers of r.
func hooked(r *policy.Ruleset) *policy.Ruleset {
	out := &policy.Ruleset{
		Sets: map[string]policy.Set{}, Chains: map[string]policy.Chain{}, Links: map[string]policy.Link{"vwother": {}}, Resolvers: r.Resolvers,
	}
	if r.Resolvers != "" {
		out.Sets[r.Resolvers] = r.Sets[r.Resolvers]
	}
	return out
}

// TestDirect: rules of random clusters that are sent to the kernel directly are those that the nft program sets, and nothing stays of them
// when they are removed.
func TestDirect(t *testing.T) {
	lab := labtest.New(t, nettest.Config{})
	direct, program := newSpace(t, lab, "direct"), newSpace(t, lab, "program")
	const seeds = 60
	for seed := range uint64(seeds) {
		r := policy.Compile(policytest.NewRandom(seed).ClusterWithPolicies(5))
		base := hooked(r)
		r.Links["vwother"] = base.Links["vwother"]
		direct.fw.applied, program.fw.applied = nil, nil
		direct.apply(t, base)
		direct.change(t, difference(base, r))
		program.apply(t, r)
		equalListings(t, fmt.Sprint("rules of cluster ", seed), direct, program)
		direct.change(t, difference(r, base))
		program.apply(t, base)
		equalListings(t, fmt.Sprint("without the rules of cluster ", seed), direct, program)
	}
	if direct.programs != seeds {
		t.Errorf("the nft program ran %d times, want one for each of the %d calls of Apply", direct.programs, seeds)
	}
}

// TestDirectHistory: after each of some changes of a cluster the rules are those that the nft program sets.
func TestDirectHistory(t *testing.T) {
	lab := labtest.New(t, nettest.Config{})
	direct, program := newSpace(t, lab, "direct"), newSpace(t, lab, "program")
	state, last := policy.NewState(), &policy.Cluster{}
	direct.apply(t, state.Ruleset())
	const seeds = 60
	for seed := range uint64(seeds) {
		c := policytest.NewRandom(1000 + seed).ClusterWithPolicies(5)
		policytest.Move(state, last, c)
		last = c
		change := state.Update()
		direct.do(t, func() error { return direct.fw.Change(t.Context(), change) })
		program.fw.applied = direct.fw.applied // numbers in marks stay
		program.apply(t, state.Ruleset())
		equalListings(t, fmt.Sprint("step ", seed), direct, program)
	}
	t.Logf("%d direct changes, %d runs of nft", direct.direct, direct.programs-1)
}

// TestExtensions: an extension of the rules adds what new rules for the same pods would have, and what it leaves behind goes at the next
// update.
func TestExtensions(t *testing.T) {
	lab := labtest.New(t, nettest.Config{})
	direct, program := newSpace(t, lab, "direct"), newSpace(t, lab, "program")
	marks := regexp.MustCompile(`^inet\s+map (in|e)gress[46]m `) // they keep what leads to chains that stay
	extensions := 0
	for seed := range uint64(10) {
		random := policytest.NewRandom(2000 + seed)
		c, state := random.ClusterWithPolicies(5), policy.NewState()
		policytest.Move(state, &policy.Cluster{}, c)
		state.Update()
		direct.apply(t, state.Ruleset())
		for step := range 4 {
			for range 1 + random.IntN(2) { // a pod ends, another one changes, a third one may come back
				p, from := *c.Pods[random.IntN(len(c.Pods))], c.Pods[random.IntN(len(c.Pods))]
				state.DeletePod(from.Namespace, from.Name)
				p.Labels, p.Ports = from.Labels, from.Ports
				state.SetPod(&p)
			}
			change := state.Extend()
			if change.Extension != nil {
				extensions++
			}
			direct.do(t, func() error { return direct.fw.Change(t.Context(), change) })
			what := fmt.Sprintf("cluster %d, step %d", seed, step)
			program.fw.applied = direct.fw.applied // numbers in marks stay
			program.apply(t, state.Ruleset())
			got := direct.listing(t)
			for object, want := range program.listing(t) {
				if diff := cmp.Diff(want, got[object]); diff != "" && !marks.MatchString(object) {
					t.Fatalf("%s: %s after an extension, and as it would be (-):\n%s", what, object, diff)
				}
			}
			change = state.Update()
			direct.do(t, func() error { return direct.fw.Change(t.Context(), change) })
			program.fw.applied = direct.fw.applied
			program.apply(t, state.Ruleset())
			equalListings(t, what, direct, program)
		}
	}
	if extensions < 5 {
		t.Errorf("%d extensions", extensions)
	}
}

// TestDirectForms: each form of a rule and of a set is the same from both writers when it is added, changed and removed.
func TestDirectForms(t *testing.T) {
	lab := labtest.New(t, nettest.Config{})
	direct, program := newSpace(t, lab, "direct"), newSpace(t, lab, "program")
	base := hooked(&policy.Ruleset{})
	old := newTable(base, &table{})
	move := func(what string, from, to *table, c policy.Change) {
		t.Helper()
		tx := direct.fw.change(from, to, c)
		if tx.program {
			t.Fatalf("%s: not direct", what)
		}
		direct.do(t, func() error { return direct.fw.kernel.run(tx.direct) })
		program.do(t, func() error { return program.fw.nft.Run(t.Context(), tx.Transaction) })
		equalListings(t, what, direct, program)
	}
	direct.apply(t, base)
	program.apply(t, base)

	prefixes := func(list ...string) (out []netip.Prefix) {
		for _, p := range list {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	r := hooked(&policy.Ruleset{})
	r.Sets = map[string]policy.Set{
		"s1": {}, "s2": {Blocks: true}, "s3": {Blocks: true}, "s4": {Blocks: true},
	}
	all := newTable(r, old)
	all.chains, all.links.chains = formsOf(), bridgeForms()
	move("new", old, all, policy.Change{Sets: map[string]policy.Elements{
		"s1": {Added: prefixes("10.32.0.1/32", "fd32::1/128")},
		"s2": {Added: prefixes("10.0.0.0/24", "10.0.1.0/24", "10.0.3.1/32", "128.0.0.0/1", "2001:db8::/32", "ff00::/8")},
		"s3": {Added: prefixes("0.0.0.0/0", "::/0")},
		"s4": {Added: prefixes("0.0.0.0/1", "128.0.0.0/1", "::1/128", "8000::/1")},
	}})
	move("changed", all, all, policy.Change{Sets: map[string]policy.Elements{
		"s1": {Added: prefixes("10.32.0.2/32"), Removed: prefixes("fd32::1/128")},
		"s2": {Added: prefixes("10.0.1.0/25", "192.168.0.0/16"), Removed: prefixes("10.0.1.0/24", "128.0.0.0/1", "ff00::/8")},
		"s3": {Added: prefixes("0.0.0.0/1", "255.255.255.255/32"), Removed: prefixes("0.0.0.0/0")},
		"s4": {Added: prefixes("10.0.0.0/8"), Removed: prefixes("0.0.0.0/1", "128.0.0.0/1")},
	}})
	move("removed", all, old, policy.Change{})
}

// formsOf returns chains of the inet table that have all forms of rules.
func formsOf() map[string][]rule {
	chains := map[string][]rule{}
	for _, f := range []family{families[0], families[1], families[0].reverse(), families[1].reverse()} {
		for _, d := range directions {
			name := f.name(fmt.Sprint("forms-", d))
			chains[f.name("end")] = []rule{{verdict: back}}
			chains[name] = f.rules(policy.Chain{
				Direction: d,
				Ports: []policy.PortJump{
					{Protocol: corev1.ProtocolTCP, First: 80, Last: 80, Chain: "end"}, {Protocol: corev1.ProtocolUDP, First: 53, Last: 53, Chain: "end"},
					{Protocol: corev1.ProtocolSCTP, First: 65535, Last: 65535, Chain: "end"},
				},
				Rules: []policy.Rule{
					{Set: "s1", Target: policy.Target{Action: policy.Goto, Chain: "end"}}, {Set: "s2", Target: policy.Target{Action: policy.Allow}},
					{Set: "s3", Target: policy.Target{Action: policy.Deny}}, {Set: "s4", Target: policy.Target{Action: policy.Deny}},
					{Target: policy.Target{Action: policy.Goto, Chain: "end"}},
				},
				End: policy.Target{Action: policy.Allow},
			})
			chains[name] = append(chains[name], f.rules(policy.Chain{
				Direction: d,
				Ports: []policy.PortJump{
					{Protocol: corev1.ProtocolTCP, First: 1, Last: 79, Chain: "end"}, {Protocol: corev1.ProtocolTCP, First: 80, Last: 80, Chain: "end"},
					{Protocol: corev1.ProtocolUDP, First: 0, Last: 65535, Chain: "end"},
				},
				End: policy.Target{Action: policy.Deny},
			})...)
		}
	}
	return chains
}

// bridgeForms returns chains of the bridge table that have all forms of rules.
func bridgeForms() map[string][]rule {
	chains := map[string][]rule{"unselected": unselected()}
	for _, d := range directions {
		for _, number := range []int{0, 1, fieldOf(d).highest} {
			for _, has := range []string{"", "4", "6", "46"} {
				chains[fmt.Sprintf("%s-%d-ip%s", d, number, has)] = selected(d, number, has)
			}
		}
	}
	return chains
}

// TestDirectFails: a transaction that fails at its end changes nothing and is reported at once, and the largest one succeeds.
func TestDirectFails(t *testing.T) {
	s := newSpace(t, labtest.New(t, nettest.Config{}), "direct")
	base := hooked(&policy.Ruleset{})
	s.apply(t, base)
	before, old := s.listing(t), newTable(base, &table{})
	large := newTable(base, old)
	for i := range 40 {
		name := fmt.Sprint("large-", i)
		for range maxDirect/40 - 10 {
			large.links.chains[name] = append(large.links.chains[name], families[1].strayed(policy.Ingress, goTo(dropOf(policy.Ingress))))
		}
	}
	run := func(t2 *table) error {
		tx := s.fw.change(old, t2, policy.Change{})
		if tx.program || tx.size > maxDirect {
			t.Fatalf("not direct: size %d", tx.size)
		}
		return s.Do(func() error { return s.fw.kernel.run(tx.direct) })
	}
	large.links.chains["zz"] = []rule{{verdict: goTo("missing")}}
	start := time.Now()
	if err := run(large); err == nil || !errors.Is(err, unix.ENOENT) {
		t.Errorf("a missing chain: %v", err)
	}
	if took := time.Since(start); took > runTimeout/2 {
		t.Errorf("the error took %v", took)
	}
	if diff := cmp.Diff(before, s.listing(t)); diff != "" {
		t.Errorf("a transaction that failed changed:\n%s", diff)
	}
	delete(large.links.chains, "zz")
	if err := run(large); err != nil {
		t.Errorf("a large transaction: %v", err)
	}
}

// BenchmarkChange adds and removes a pod with chains of its own, on a node with 2,000 chains and 1,000 sets: by the nft program, and
// directly.
func BenchmarkChange(b *testing.B) {
	s := newSpace(b, labtest.New(b, nettest.Config{}), "node")
	c := policytest.Large(50_000, 2_000, 500)
	c.Namespaces["x"] = policy.Labels{}
	c.Network = append(c.Network, policies().Network...)
	state := policy.NewState()
	policytest.Move(state, &policy.Cluster{}, c)
	state.Update()
	s.apply(b, state.Ruleset())
	now := newTable(state.Ruleset(), &table{})
	pod := podOf("web1", "web", 2)
	change := func(b *testing.B, program bool) time.Duration {
		c := state.Update()
		time.Sleep(50 * time.Millisecond) // the kernel frees what the last change removed
		start := time.Now()
		s.do(b, func() error {
			t := newTable(c.Rules, now)
			tx := s.fw.change(now, t, c)
			tx.program = tx.program || program
			now = t
			return s.fw.run(b.Context(), tx)
		})
		return time.Since(start)
	}
	for _, way := range []string{"program", "direct"} {
		b.Run(way, func(b *testing.B) {
			var added, removed time.Duration
			for range b.N {
				state.SetPod(pod)
				added += change(b, way == "program")
				state.DeletePod(pod.Namespace, pod.Name)
				removed += change(b, way == "program")
			}
			b.ReportMetric(float64(added.Microseconds())/float64(b.N), "µs/new")
			b.ReportMetric(float64(removed.Microseconds())/float64(b.N), "µs/deleted")
		})
	}
	b.Run("table", func(b *testing.B) { // without the kernel
		r := state.Ruleset()
		for b.Loop() {
			newTable(r, now)
		}
	})
}
