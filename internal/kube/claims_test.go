package kube

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/internal/kube/cluster"
	"weft/internal/kube/policy"
)

// TestClaims: after any history, each address belongs to the pod that comes first among those that claim it now: one that the plugin has
// attached, then one that is not being deleted, then the youngest. No other pod has it.
func TestClaims(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		state := policy.NewState()
		np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "all"}}
		state.SetPolicies(policy.Policies{Network: []*networkingv1.NetworkPolicy{np}})
		c := newClaims("node1", state, func(netip.Addr) string { return "port" })
		pods, attached := map[podKey]*cluster.Pod{}, map[podKey]*attachment{}
		for range 80 {
			key := podKey{Namespace: "ns", Name: fmt.Sprint("p", r.IntN(6))}
			delete(pods, key)
			delete(attached, key)
			if r.IntN(4) > 0 {
				pods[key] = randomPod(r, key)
				if r.IntN(3) == 0 {
					attached[key] = &attachment{IPs: randomAddrs(r), Link: "port"}
				}
			}
			c.update(key, pods[key], attached[key])
			state.Update()
			checkClaims(t, seed, c, state, pods, attached)
		}
	}
}

func randomAddrs(r *rand.Rand) (out []netip.Addr) {
	for _, i := range r.Perm(4)[:r.IntN(3)] {
		out = append(out, netip.AddrFrom4([4]byte{10, 32, 0, byte(i + 1)}))
	}
	return out
}

func randomPod(r *rand.Rand, key podKey) *cluster.Pod {
	return &cluster.Pod{
		Namespace: key.Namespace, Name: key.Name, Node: fmt.Sprint("node", 1+r.IntN(2)), IPs: randomAddrs(r),
		Created: int64(r.IntN(3)), Deleting: r.IntN(3) == 0, Finished: r.IntN(8) == 0, HostNetwork: r.IntN(8) == 0,
	}
}

// checkClaims compares the addresses of claims and of the state with those that follow from the pods.
func checkClaims(t *testing.T, seed uint64, c *claims, state *policy.State, pods map[podKey]*cluster.Pod, attached map[podKey]*attachment) {
	t.Helper()
	var owned []netip.Addr
	for i := range 4 {
		ip := netip.AddrFrom4([4]byte{10, 32, 0, byte(i + 1)})
		var best *claim
		for key, p := range pods {
			if x := c.claimOf(p, attached[key]); x != nil && slices.Contains(x.pod.IPs, ip) && (best == nil || x.before(best)) {
				best = x
			}
		}
		want := ""
		if best != nil {
			want = best.pod.Namespace + "/" + best.pod.Name
			owned = append(owned, ip)
		}
		if got := c.name(ip); got != want {
			t.Fatalf("seed %d: %v belongs to %q, want %q", seed, ip, got, want)
		}
	}
	if addrs := state.Ruleset().Addrs; !slices.Equal(addrs, owned) {
		t.Fatalf("seed %d: the state has %v, want %v", seed, addrs, owned)
	}
	for key := range c.portless {
		t.Fatalf("seed %d: %v has no port", seed, key)
	}
}
