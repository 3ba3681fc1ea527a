package e2e

import (
	"testing"

	"weft/internal/api"
)

// TestTrustedSubnets: traffic between two nodes that both trust the subnet of the other is not encrypted, and uses the same
// datapath as without a secret. If only one of them trusts the other, it is encrypted.
func TestTrustedSubnets(t *testing.T) {
	t.Parallel()
	const trust = "--trusted-subnets=192.168.77.0/24"
	for _, tt := range []struct {
		name     string
		a, b     []string
		datapath api.Datapath
		cipher   api.Cipher
	}{
		{"both", []string{trust}, []string{trust}, api.DatapathKernel, ""},
		{"one", []string{trust}, nil, api.DatapathUserspace, aes},
		{"both in userspace", []string{trust, "--datapath=userspace"}, []string{trust, "--datapath=userspace"}, api.DatapathUserspace, ""},
		{"another subnet", []string{trust}, []string{"--trusted-subnets=10.99.0.0/16,fd00::/8"}, api.DatapathUserspace, aes},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nodes := newNodes(t, "a", "b")
			captures := captureUnderlay(t, nodes...)
			secret := newSecret(t)
			for i, args := range [][]string{tt.a, tt.b} {
				writeSecret(t, nodes[i], secret)
				upSealed(t, nodes, nodes[i], args...)
			}
			waitReady(t, nodes)
			pods := reachingPods(t, nodes)
			waitCarried(t, nodes, tt.datapath, tt.cipher)
			seen := exchangeMarks(t, pods)
			for _, c := range captures {
				packets := c.packets(t)
				if tt.cipher != "" {
					seen.sealed(t, packets)
					continue
				}
				seen.readable(t, packets)
				if n := len(datagrams(packets, kernelPort)); (n > 0) != (tt.datapath == api.DatapathKernel) {
					t.Errorf("%d datagrams of the kernel path", n)
				}
				if n := byType(packets); tt.datapath == api.DatapathUserspace && n[plainFrame] == 0 {
					t.Errorf("no plain frame; the datagrams by their first byte are %v", n)
				}
				if n := (marks{"the secret": []byte(secret), "its key": secretKey(t, secret)}).in(packets); len(n) > 0 {
					t.Errorf("readable: %v", n)
				}
			}
		})
	}
}
