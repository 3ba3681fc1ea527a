package kubernetes

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// hostPortNumber is the port of the node that the tests publish.
const hostPortNumber = "28080"

// publishes returns an error if a port of node 1 does not lead to a pod, from outside the cluster and at each address.
func (l *lab) publishes(t testing.TB) error {
	t.Helper()
	var all []error
	for _, family := range l.families() {
		_, err := l.clientOf(t, l.nodeAddress(1, family), hostPortNumber)
		all = append(all, err)
	}
	return errors.Join(all...)
}

// hostPortRules returns the names of the chains and tables that have rules of host ports, as arguments of the command that flushes them.
func (l *lab) hostPortRules(t testing.TB) (flush [][]string) {
	t.Helper()
	for _, table := range []string{"inet cni_hostport", "ip cni_hostport", "ip6 cni_hostport"} {
		if strings.Contains(l.onNode(t, 1, "nft", "list", "tables"), "table "+table+"\n") {
			flush = append(flush, append([]string{"nft", "flush", "table"}, strings.Fields(table)...))
		}
	}
	for _, program := range []string{"iptables", "ip6tables"} {
		rules, err := l.run(t.Context(), "node", "1", program, "-t", "nat", "-S")
		if err == nil && strings.Contains(rules, "--dport "+hostPortNumber) {
			flush = append(flush, []string{program, "-t", "nat", "-F", "CNI-HOSTPORT-DNAT"})
		}
	}
	return flush
}

// hostPortFlushed: another program removes the rules of a port of the host, and weft restores them.
func (l *lab) hostPortFlushed(t *recorder) string {
	l.createTemporary(t, pod{name: "published", node: 1, container: ", ports: [{containerPort: 8080, hostPort: " + hostPortNumber + "}]"})
	until(t, func() error { return l.publishes(t) })
	flush := l.hostPortRules(t)
	if len(flush) == 0 {
		t.Fatal("no rules of host ports found on the node")
	}
	for _, command := range flush {
		l.onNode(t, 1, command...)
	}
	start := time.Now()
	if err := l.publishes(t); err == nil {
		t.Log("the port answers at once after the rules were flushed")
	}
	until(t, func() error { return l.publishes(t) })
	return fmt.Sprintf("the port answers again %.1f s after `%s`", time.Since(start).Seconds(), strings.Join(flush[0], " "))
}
