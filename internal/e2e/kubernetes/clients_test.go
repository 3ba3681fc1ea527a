package kubernetes

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// localService describes a Service with a port on each node that leads to a pod of the same node only.
const localService = `{apiVersion: v1, kind: Service, metadata: {name: local}, spec: {type: NodePort, externalTrafficPolicy: Local,
  ipFamilyPolicy: PreferDualStack, selector: {name: p2}, ports: [{port: 80, targetPort: 8080}]}}`

// clusterService describes one that leads to any node.
const clusterService = `{apiVersion: v1, kind: Service, metadata: {name: cluster}, spec: {type: NodePort,
  ipFamilyPolicy: PreferDualStack, selector: {name: p2}, ports: [{port: 80, targetPort: 8080}]}}`

// nodePort returns the port of a Service on each node.
func (l *lab) nodePort(t testing.TB, service string) string {
	t.Helper()
	return l.kubectl(t, "get", "service", service, "-o", "jsonpath={.spec.ports[0].nodePort}")
}

// clientOf returns the address of the client that a server reports, fetched from outside the cluster.
func (l *lab) clientOf(t testing.TB, address, port string) (netip.Addr, error) {
	t.Helper()
	if strings.Contains(address, ":") {
		address = "[" + address + "]"
	}
	out, err := l.run(t.Context(), "api", "curl", "-sSg", "-m2", "http://"+address+":"+port+"/clientip")
	if err != nil {
		return netip.Addr{}, err
	}
	client, err := netip.ParseAddrPort(out)
	return client.Addr().Unmap(), err
}

// clientAddresses: a pod behind a port of the nodes sees the address of a client outside the cluster with externalTrafficPolicy: Local, and
// that of the pod between pods.
func (l *lab) clientAddresses(t *recorder) string {
	l.applyTemporary(t, "local.yaml", localService)
	l.applyTemporary(t, "cluster.yaml", clusterService)
	var seen []string
	for _, family := range l.families() {
		want := netip.MustParseAddr(map[int]string{4: "172.30.0.1", 6: "fd00:172:30::1"}[family])
		var client netip.Addr
		until(t, func() (err error) {
			client, err = l.clientOf(t, l.nodeAddress(2, family), l.nodePort(t, "local"))
			return err
		})
		if client != want {
			t.Errorf("with the policy Local the pod sees the client %v, want %v", client, want)
		}
		if other, err := l.clientOf(t, l.nodeAddress(1, family), l.nodePort(t, "local")); err == nil {
			t.Errorf("a node without a pod answers %v", other)
		}
		var by netip.Addr
		until(t, func() (err error) {
			by, err = l.clientOf(t, l.nodeAddress(1, family), l.nodePort(t, "cluster"))
			return err
		})
		seen = append(seen, fmt.Sprintf("client %v: seen as %v with the policy Local, as %v with Cluster by way of another node",
			want, client, by))
	}
	own := l.ips(t, "pod", "p1")
	for i, service := range l.ips(t, "service", "p2") {
		out, err := l.exec(t, "p1", "curl", "-sSg", "-m2", "http://"+hostPort(service, 80)+"/clientip")
		client, parseErr := netip.ParseAddrPort(out)
		if err != nil || parseErr != nil || client.Addr().Unmap() != own[i] {
			t.Errorf("through a ClusterIP the pod sees the client %q, want %v: %v", out, own[i], err)
		}
	}
	return strings.Join(seen, "; ") + "; a pod through a ClusterIP: its own address"
}
