package kubernetes

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"weft/internal/netspace"
)

// isolate describes a policy that denies a pod all ingress but what the rules allow.
func isolate(name, rules string) string {
	return fmt.Sprintf(`{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: isolate-%[1]s},
  spec: {podSelector: {matchLabels: {name: %[1]s}}, policyTypes: [Ingress], ingress: [%[2]s]}}`, name, rules)
}

// datagramPort is the port of datagrams that policies must drop.
const datagramPort = 29999

// listener receives datagrams in the network namespace of a pod, also those to groups and broadcasts.
type listener struct{ conns []net.PacketConn }

// listen opens a listener. It is closed at the end of the test.
func listen(t testing.TB, ns netns.NsHandle, groups []netip.Addr) *listener {
	t.Helper()
	l := &listener{}
	if err := netspace.Do(ns, func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		config := net.ListenConfig{Control: socketOptions}
		any, err := config.ListenPacket(t.Context(), "udp", fmt.Sprint(":", datagramPort))
		if err != nil {
			return err
		}
		l.conns = append(l.conns, any)
		for _, g := range groups {
			conn, err := net.ListenMulticastUDP("udp", eth0, &net.UDPAddr{IP: g.AsSlice(), Port: datagramPort})
			if err != nil {
				return err
			}
			l.conns = append(l.conns, conn)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range l.conns {
			_ = c.Close()
		}
	})
	return l
}

// received reports whether a datagram with a text arrives at any of the sockets within a time.
func (l *listener) received(text string, within time.Duration) bool {
	found := make(chan bool, len(l.conns))
	for _, c := range l.conns {
		_ = c.SetReadDeadline(time.Now().Add(within))
		go func() {
			buf := make([]byte, 1500)
			for {
				n, _, err := c.ReadFrom(buf)
				if err != nil || string(buf[:n]) == text {
					found <- err == nil
					return
				}
			}
		}()
	}
	any := false
	for range l.conns {
		if <-found {
			any = true
			for _, c := range l.conns {
				_ = c.SetReadDeadline(time.Now())
			}
		}
	}
	return any
}

// sendDatagram sends a text from the network namespace of a pod. The zone of link-local addresses and groups is eth0.
func sendDatagram(ns netns.NsHandle, to netip.Addr, text string) error {
	return netspace.Do(ns, func() error {
		conn, err := (&net.Dialer{Control: socketOptions}).Dial("udp", netip.AddrPortFrom(to, datagramPort).String())
		if err != nil {
			return err
		}
		_, err = conn.Write([]byte(text))
		return errors.Join(err, conn.Close())
	})
}

// linkLocal returns the IPv6 link-local address of eth0 in a namespace.
func linkLocal(t testing.TB, ns netns.NsHandle) (local netip.Addr) {
	t.Helper()
	if err := netspace.Do(ns, func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		addrs, err := eth0.Addrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
				local = p.Addr().WithZone("eth0")
			}
		}
		return err
	}); err != nil || !local.IsValid() {
		t.Fatalf("no link-local address: %v", err)
	}
	return local
}

// policiesByPort: a policy holds for multicast, broadcast and link-local traffic, too. The same datagrams arrive before the policy is
// created, as far as pods of one node and of two reach each other with them.
func (l *lab) policiesByPort(t *recorder) string {
	l.createTemporary(t, pod{name: "closed", node: 1}, pod{name: "near", node: 1}, pod{name: "far", node: 2})
	target := l.podSpace(t, 1, "closed")
	var groups []netip.Addr
	kinds := map[string]netip.Addr{}
	for _, family := range l.families() {
		if family == 4 {
			groups = append(groups, netip.MustParseAddr("239.9.9.9"))
			kinds["IPv4 multicast"], kinds["IPv4 broadcast"] = groups[len(groups)-1], netip.MustParseAddr("255.255.255.255")
		} else {
			groups = append(groups, netip.MustParseAddr("ff02::9999"))
			kinds["IPv6 multicast"], kinds["IPv6 link-local"] = groups[len(groups)-1].WithZone("eth0"), linkLocal(t, target)
		}
	}
	at := listen(t, target, groups)
	senders := map[string]netns.NsHandle{"near": l.podSpace(t, 1, "near"), "far": l.podSpace(t, 2, "far")}
	number := 0
	arrives := func(from string, to netip.Addr, within time.Duration) bool {
		number++
		text := fmt.Sprintf("datagram %d", number)
		if err := sendDatagram(senders[from], to, text); err != nil {
			t.Fatalf("from %s to %v: %v", from, to, err)
		}
		return at.received(text, within)
	}
	var tried []string
	open := map[string]bool{}
	for kind, to := range kinds {
		for from := range senders {
			for range 5 {
				if arrives(from, to, 2*time.Second) {
					open[kind+" from "+from] = true
					tried = append(tried, kind+" from "+from)
					break
				}
			}
		}
	}
	for kind := range kinds {
		if !open[kind+" from near"] {
			t.Errorf("%s does not arrive without a policy, so the test shows nothing", kind)
		}
	}
	l.applyTemporary(t, "closed.yaml", isolate("closed", ""))
	until(t, func() error {
		if l.reach(t, "near", "closed") == nil {
			return errors.New("the policy is not in force")
		}
		return nil
	})
	for kind, to := range kinds {
		for from := range senders {
			for range 3 {
				if arrives(from, to, time.Second) {
					t.Errorf("%s from %s arrives in spite of the policy", kind, from)
					break
				}
			}
		}
	}
	return fmt.Sprintf("%d kinds of datagrams arrived before the policy and none after it (%s)", len(tried), strings.Join(tried, ", "))
}

// served returns an error if a pod does not answer to HTTP from another one.
func (l *lab) served(t testing.TB, from, to string, port uint16) error {
	t.Helper()
	_, err := l.exec(t, from, "curl", "-sSg", "-m1", "http://"+hostPort(l.ip(t, to), port)+"/clientip")
	return err
}

// refusedSteadily waits until a pod does not answer, and checks that it stays so.
func (l *lab) refusedSteadily(t testing.TB, from, to string, port uint16) {
	t.Helper()
	until(t, func() error {
		for range 3 {
			if l.served(t, from, to, port) == nil {
				return fmt.Errorf("%s answers %s at port %d", to, from, port)
			}
		}
		return nil
	})
}

// hostNetworkSources: a policy treats pods on the host network as their node. The node of a pod always reaches it, other nodes need a rule.
func (l *lab) hostNetworkSources(t *recorder) string {
	const host = "  hostNetwork: true"
	l.createTemporary(t, pod{name: "target", node: 2}, pod{name: "host1", node: 1, spec: host, container: ", ports: [{containerPort: 8080}]"},
		pod{name: "host2", node: 2, spec: host, container: ", ports: [{containerPort: 8080}]"})
	for _, from := range []string{"host1", "host2", "p1"} {
		until(t, func() error { return l.served(t, from, "target", 8080) })
	}
	out, err := l.exec(t, "host1", "curl", "-sSg", "-m1", "http://"+hostPort(l.ip(t, "target"), 8080)+"/clientip")
	source, parseErr := netip.ParseAddrPort(out)
	if err != nil || parseErr != nil {
		t.Fatalf("%q: %v, %v", out, err, parseErr)
	}
	l.applyTemporary(t, "target.yaml", isolate("target", ""))
	for _, from := range []string{"host1", "p1"} {
		l.refusedSteadily(t, from, "target", 8080)
	}
	if err := l.served(t, "host2", "target", 8080); err != nil {
		t.Errorf("the node of a pod does not reach it: %v", err)
	}
	// Labels of pods on the host network select nothing, because their address is that of the node.
	l.applyTemporary(t, "target.yaml", isolate("target", "{from: [{podSelector: {matchLabels: {name: host1}}}]}"))
	l.refusedSteadily(t, "host1", "target", 8080)
	address := source.Addr().Unmap()
	node := netip.MustParseAddr(l.nodeAddress(1, 0))
	for _, ip := range []netip.Addr{address, node} {
		block := netip.PrefixFrom(ip, ip.BitLen())
		l.applyTemporary(t, "target.yaml", isolate("target", fmt.Sprintf("{from: [{ipBlock: {cidr: %q}}]}", block)))
		until(t, func() error { return l.served(t, "host1", "target", 8080) })
		l.refusedSteadily(t, "p1", "target", 8080)
	}
	return fmt.Sprintf("a pod on the host network of another node is seen as %v, is denied, and passes by an ipBlock of that address or of "+
		"its node (%v); one of the same node always passes", address, node)
}

// clusterPolicy: a ClusterNetworkPolicy decides before NetworkPolicies once the cluster has the kind, and is gone with it.
func (l *lab) clusterPolicy(t *recorder) string {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/network-policy-api").Output()
	if err != nil {
		t.Fatal(err)
	}
	// The experimental channel has domain names as well.
	kind := filepath.Join(strings.TrimSpace(string(out)), "config/crd/experimental/policy.networking.k8s.io_clusternetworkpolicies.yaml")
	l.createTemporary(t, pod{name: "target", node: 2, container: ", ports: [{containerPort: 8080}]"}, pod{name: "asker", node: 1})
	until(t, func() error { return l.served(t, "p1", "target", 8080) })
	l.kubectl(t, "apply", "-f", kind)
	t.Cleanup(func() { _, _ = l.run(l.all.Context(), "k", "delete", "--ignore-not-found", "-f", kind) })
	until(t, func() error { // at first it has no conditions, at which kubectl ends
		_, err := l.run(t.Context(), "k", "wait", "--for=condition=Established", "crd/clusternetworkpolicies.policy.networking.k8s.io",
			"--timeout=60s")
		return err
	})
	policy := l.file(t, "cluster.yaml", `apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: deny}
spec:
  tier: Admin
  priority: 10
  subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {name: target}}}}
  ingress:
  - {action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 8080}}}]}
`)
	start := time.Now()
	l.kubectl(t, "apply", "-f", policy)
	until(t, func() error {
		if l.served(t, "p1", "target", 8080) == nil {
			return errors.New("the connection is not denied")
		}
		return nil
	})
	took := time.Since(start)
	l.refusedSteadily(t, "p1", "target", 8080)
	l.domainNames(t)
	l.kubectl(t, "delete", "-f", kind)
	until(t, func() error { return l.served(t, "p1", "target", 8080) })
	until(t, func() error { return l.connects(t, "asker", l.nodeAddress(2, l.families()[0]), kubeletPort) })
	return fmt.Sprintf("denied %.0f s after the first policy of the kind, which was new in the cluster; a host outside the cluster passes by "+
		"the name that cluster DNS has for it, another host does not; all is allowed without the kind", took.Seconds())
}

// Ports of hosts that answer to HTTPS.
const (
	apiPort     = 6443
	kubeletPort = 10250
)

// connects returns an error if a pod gets no HTTPS response from a host, which has an address or a name.
func (l *lab) connects(t testing.TB, from, host string, port uint16) error {
	t.Helper()
	_, err := l.exec(t, from, "curl", "-sSgk", "-m2", "-o", "/dev/null", "https://"+net.JoinHostPort(host, fmt.Sprint(port))+"/healthz")
	return err
}

// domainNames: of the hosts outside the cluster, a pod reaches the one that a ClusterNetworkPolicy allows by its domain name, once the pod
// has asked for the name.
func (l *lab) domainNames(t *recorder) {
	family := l.families()[0]
	api, everything := "172.30.0.1", "0.0.0.0/0"
	if family == 6 {
		api, everything = "fd00:172:30::1", "::/0"
	}
	hosts := map[string]string{"outside": api, "other": l.nodeAddress(2, family)}
	for name, address := range hosts {
		l.applyTemporary(t, name+".yaml", fmt.Sprintf(`{apiVersion: v1, kind: Service, metadata: {name: %[1]s},
  spec: {clusterIP: None, ports: [{port: 443}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: %[1]s, labels: {kubernetes.io/service-name: %[1]s}},
  addressType: IPv%[3]d, ports: [{port: 443}], endpoints: [{addresses: ["%[2]s"]}]}
`, name, address, family))
	}
	const domain = ".default.svc.cluster.local"
	byName := func(name string, port uint16) error { return l.connects(t, "asker", name+domain, port) }
	until(t, func() error { return errors.Join(byName("outside", apiPort), byName("other", kubeletPort)) })
	l.applyTemporary(t, "domains.yaml", fmt.Sprintf(`apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: domains}
spec:
  tier: Admin
  priority: 20
  subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {name: asker}}}}
  egress:
  - {action: Accept, to: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}}]}
  - {action: Accept, to: [{domainNames: [outside%s]}]}
  - {action: Deny, to: [{networks: ["%s"]}]}
`, domain, everything))
	until(t, func() error {
		if byName("other", kubeletPort) == nil {
			return errors.New("a host is not denied")
		}
		return nil
	})
	until(t, func() error { return byName("outside", apiPort) })
	for range 3 {
		if err := byName("outside", apiPort); err != nil {
			t.Errorf("the host that the policy allows by its name: %v", err)
		}
		if byName("other", kubeletPort) == nil {
			t.Error("a host passes that the policy does not name")
		}
	}
}

// sidecarPort: a policy allows a port by the name that a native sidecar gives it.
func (l *lab) sidecarPort(t *recorder) string {
	sidecar := `  initContainers:
  - {name: side, image: "` + agnhost + `", imagePullPolicy: Never, restartPolicy: Always, args: [netexec, --http-port=8081, --udp-port=-1],
     ports: [{name: side, containerPort: 8081}]}`
	l.createTemporary(t, pod{name: "sidecar", node: 2, spec: sidecar, container: ", ports: [{name: main, containerPort: 8080}]"})
	for _, port := range []uint16{8080, 8081} {
		until(t, func() error { return l.served(t, "p1", "sidecar", port) })
	}
	l.applyTemporary(t, "sidecar.yaml", isolate("sidecar", "{ports: [{port: side}]}"))
	l.refusedSteadily(t, "p1", "sidecar", 8080)
	until(t, func() error { return l.served(t, "p1", "sidecar", 8081) })
	return "the port of the sidecar is open, that of the other container is not"
}

// addressReused: a pod that a policy allows has ended, and its object stays with its address. The next pod with that address is denied.
func (l *lab) addressReused(t *recorder) string {
	l.createTemporary(t, pod{name: "reuse", node: 2})
	l.applyTemporary(t, "reuse.yaml", isolate("reuse", "{from: [{podSelector: {matchLabels: {friend: yes-it-is}}}]}"))
	l.refusedSteadily(t, "p1", "reuse", 8080)

	// Pods that have succeeded keep their addresses in their status.
	const friends = 3
	var text strings.Builder
	var names []string
	for i := range friends {
		names = append(names, fmt.Sprintf("friend%d", i))
		_, _ = fmt.Fprintf(&text, `{apiVersion: v1, kind: Pod, metadata: {name: %s, labels: {friend: yes-it-is}}, spec: {nodeName: node1,
  restartPolicy: Never, terminationGracePeriodSeconds: 1, containers: [{name: c, image: "%s", imagePullPolicy: Never,
  command: [sh, -c, "until curl -sSg -m1 http://%s/; do sleep 0.2; done"]}]}}
---
`, names[i], agnhost, hostPort(l.ip(t, "reuse"), 8080))
	}
	l.applyTemporary(t, "friends.yaml", text.String())
	l.kubectl(t, append([]string{"wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s", "pod"}, names...)...)
	ended := map[netip.Addr]bool{}
	for _, name := range names {
		ended[l.ip(t, name)] = true
	}
	reused := 0
	for try := range 20 {
		name := fmt.Sprintf("next%d", try)
		l.createTemporary(t, pod{name: name, node: 1})
		if !ended[l.ip(t, name)] {
			continue
		}
		reused++
		for range 5 {
			if l.served(t, name, "reuse", 8080) == nil {
				t.Errorf("a pod with the address %v of a pod that has ended passes the policy for that pod", l.ip(t, name))
				break
			}
		}
		if reused == friends {
			break
		}
	}
	if reused == 0 {
		t.Skip("no address of a pod that has ended was used again by the next 20 pods")
	}
	return fmt.Sprintf("%d pods got the address of a pod that a policy allows and that has ended: denied", reused)
}
