package kubernetes

import (
	"regexp"
	"slices"
	"testing"
)

// setting is a kind of cluster, with what happens on it.
type setting struct {
	name, description string
	family            string // ipv4, dual or ipv6
	proxy             string // mode of kube-proxy: iptables or nftables
	plain             bool   // nodes communicate without encryption
	before            []step // steps before the upstream tests
	suites            []suite
	after             []step
}

// settings are the clusters of "make e2e" in their order.
var settings = []setting{
	{
		name: "iptables", description: "IPv4, kube-proxy with iptables, encrypted, installed by the manifest",
		family: "ipv4", proxy: "iptables",
		before: slices.Concat([]step{
			{name: "no Secret", run: (*lab).withoutSecret},
			{name: "install the previous release", run: (*lab).installPrevious, setUp: true},
			{name: "DNS and two pods", run: (*lab).workload, setUp: true},
			{name: "upgrade from the previous release under load", run: (*lab).upgradeFromPrevious, setUp: true},
			{name: "what the token of a node may change", run: (*lab).tokens},
			{name: "what the token may read", run: (*lab).tokenReads},
			{name: "what the containers may do", run: (*lab).containers},
			{name: "the Secret is deleted", run: (*lab).secretGone},
		}, everywhere, []step{
			{name: "300 pods on one node", run: (*lab).manyPods},
			{name: "rotation of the secret by the Secret object", run: (*lab).rotate},
			{name: "restart of weft under load", run: (*lab).restart},
			{name: "signed identities beside the secret", run: (*lab).identities, setUp: true},
			{name: "crash and reboot of a node", run: (*lab).reboot},
			{name: "API server stopped for a while", run: (*lab).apiAway},
		}),
		suites: []suite{conformance, netpol},
		after: []step{
			{name: "a node is shut out", run: (*lab).shutOut},
			{name: "a node is deleted", run: (*lab).deleteNode},
		},
	},
	{
		name: "nftables", description: "IPv4, kube-proxy with nftables, encrypted, installed by Helm", family: "ipv4", proxy: "nftables",
		before: slices.Concat([]step{
			{name: "helm install", run: (*lab).helmInstall, setUp: true},
			{name: "DNS and two pods", run: (*lab).workload, setUp: true},
			{name: "helm upgrade under load", run: (*lab).helmUpgrade},
		}, everywhere, []step{
			{name: "crash and reboot of a node", run: (*lab).reboot},
		}),
		suites: []suite{conformance, netpol},
		after:  []step{{name: "helm uninstall", run: (*lab).helmUninstall}},
	},
	{
		name: "plain", description: "IPv4, kube-proxy with iptables, not encrypted, installed by the manifest", family: "ipv4", proxy: "iptables",
		plain: true,
		before: []step{
			{name: "install", run: (*lab).install, setUp: true},
			{name: "DNS and two pods", run: (*lab).workload, setUp: true},
			{name: "restart of weft under load", run: (*lab).restart},
		},
		suites: []suite{conformance, netpol},
	},
	{
		name: "dual", description: "IPv4 and IPv6, kube-proxy with nftables, encrypted, installed by Helm", family: "dual", proxy: "nftables",
		before: slices.Concat([]step{
			{name: "helm install", run: (*lab).helmInstall, setUp: true},
			{name: "DNS and two pods", run: (*lab).workload, setUp: true},
			{name: "helm upgrade under load", run: (*lab).helmUpgrade},
		}, everywhere, []step{
			{name: "crash and reboot of a node", run: (*lab).reboot},
		}),
		suites: []suite{conformance, dualStack, netpol},
		after:  []step{{name: "helm uninstall", run: (*lab).helmUninstall}},
	},
	{
		name: "ipv6", description: "IPv6 alone, kube-proxy with iptables, encrypted, installed by the manifest",
		family: "ipv6", proxy: "iptables",
		before: slices.Concat([]step{
			{name: "install", run: (*lab).install, setUp: true},
			{name: "DNS and two pods", run: (*lab).workload, setUp: true},
			{name: "restart of weft under load", run: (*lab).restart},
		}, everywhere, []step{
			{name: "crash and reboot of a node", run: (*lab).reboot},
		}),
		suites: []suite{conformance, netpol},
		after:  []step{{name: "a node is deleted", run: (*lab).deleteNode}},
	},
}

// everywhere are the steps that depend on the mode of kube-proxy and on the address family.
var everywhere = []step{
	{name: "addresses of clients", run: (*lab).clientAddresses},
	{name: "rules of a host port are flushed", run: (*lab).hostPortFlushed},
	{name: "a pod sends as another", run: (*lab).guard},
	{name: "policies for multicast, broadcast and link-local", run: (*lab).policiesByPort},
	{name: "pods on the host network and policies", run: (*lab).hostNetworkSources},
	{name: "named port of a native sidecar", run: (*lab).sidecarPort},
	{name: "ClusterNetworkPolicy and domain names", run: (*lab).clusterPolicy},
	{name: "an address is used again at once", run: (*lab).addressReused},
}

// smoke is the cluster of "make e2e-smoke": what a release needs, in a quarter of an hour.
var smoke = setting{
	name: "smoke", description: "IPv4, kube-proxy with iptables, encrypted", family: "ipv4", proxy: "iptables",
	before: []step{
		{name: "install the previous release", run: (*lab).installPrevious, setUp: true},
		{name: "DNS and two pods", run: (*lab).workload, setUp: true},
		{name: "upgrade from the previous release under load", run: (*lab).upgradeFromPrevious, setUp: true},
		{name: "addresses of clients", run: (*lab).clientAddresses},
		{name: "a pod sends as another", run: (*lab).guard},
		{name: "crash and reboot of a node", run: (*lab).reboot},
	},
	suites: []suite{smokeConformance, smokeNetpol},
	after: []step{
		{name: "from the manifest to Helm", run: (*lab).manifestToHelm},
		{name: "helm uninstall", run: (*lab).helmUninstall},
	},
}

// TestSettings needs no cluster: the results of steps are found by their names.
func TestSettings(t *testing.T) {
	for _, s := range append(slices.Clone(settings), smoke) {
		names := map[string]bool{}
		for _, step := range slices.Concat(s.before, s.after) {
			if step.run == nil || names[step.name] {
				t.Errorf("%s: the step %q is there twice, or does nothing", s.name, step.name)
			}
			names[step.name] = true
		}
		for _, suite := range s.suites {
			for _, expression := range []string{suite.focus, suite.skip} {
				if _, err := regexp.Compile(expression); err != nil {
					t.Errorf("%s: %s: %v", s.name, suite.name, err)
				}
			}
		}
	}
}
