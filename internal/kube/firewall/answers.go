package firewall

import (
	"fmt"

	"sigs.k8s.io/knftables"

	"weft/internal/kube/policy"
)

// AnswerGroup is the netfilter log group that receives the DNS answers to pods with rules by domain name.
const AnswerGroup = 6781

// beforeJudge is the priority of the chains that copy answers: before the chain that decides about packets, and behind the rules of the
// bridge, which drop packets with the address of another pod.
const beforeJudge knftables.BaseChainPriority = "-1"

// askers returns the name of the set with the addresses of the pods that the answers of interest go to.
func (f family) askers() string { return "askers" + f.suffix }

// answerHooks are the base chains that copy answers. They exist only while there are askers.
var answerHooks = [...]struct {
	name string
	hook knftables.BaseChainHook
	rule func(f family, resolvers string) string
}{
	// Of the cluster's DNS. The port is that of the question: behind a Service the server may listen at another one. Only answers to a
	// question of the pod count.
	{"answers-forward", knftables.ForwardHook, func(f family, resolvers string) string {
		return knftables.Concat("ct direction reply ct original proto-dst 53", f.word, "saddr @", f.set(resolvers))
	}},
	// Of the host, such as a DNS cache of the node. It may exempt its packets from connection tracking.
	{"answers-output", knftables.OutputHook, func(family, string) string { return "th sport 53" }},
}

// changeAnswers adds or removes the chains that copy answers. resolvers are the names of the set of DNS servers before and now; empty: no
// answers are copied.
func changeAnswers(b batch, old, now string) {
	if old == now {
		return
	}
	for _, h := range answerHooks {
		if old != "" {
			b.flush(&knftables.Chain{Name: h.name})
			b.del(&knftables.Chain{Name: h.name})
		}
		if now == "" {
			continue
		}
		var rules []string
		for _, f := range families {
			rules = append(rules, knftables.Concat("meta l4proto { 6, 17 }", f.word, "daddr @", f.askers(), h.rule(f, now),
				fmt.Sprintf("log group %d", AnswerGroup)))
		}
		b.hook(h.name, h.hook, beforeJudge, rules...)
	}
}

// askersOf returns the elements of the set of askers.
func (f family) askersOf(r *policy.Ruleset) elements {
	out := elements{}
	for _, ip := range r.Askers {
		if f.of(ip) {
			out[keyOf(ip)] = verdict{}
		}
	}
	return out
}
