package node

import (
	"strings"
	"testing"

	"weft/internal/identity"
)

// TestIdentityRemedy: the remedy names the node that it is about; in Kubernetes the signer issues certificates, not the operator.
func TestIdentityRemedy(t *testing.T) {
	for _, tt := range []struct {
		kubernetes string
		refusal    identity.Refusal
		want       string
	}{
		{"", identity.NoCertificate, `Sign the output of "weft identity request" of this node with "weft ca sign"`},
		{"10.96.0.1", identity.NoCertificate, `Find out why this node has no certificate of the signer: "kubectl get csr"`},
		{"10.96.0.1", identity.Expired, `Find out why this node has no certificate of the signer: "kubectl get csr"`},
		{"10.96.0.1", identity.Revoked, `If this node is sound again, remove its node.key`},
	} {
		t.Setenv("KUBERNETES_SERVICE_HOST", tt.kubernetes)
		if got := identityRemedy(tt.refusal, "this node"); !strings.HasPrefix(got, tt.want) {
			t.Errorf("in Kubernetes: %t, %v: %q, want %q", tt.kubernetes != "", tt.refusal, got, tt.want)
		}
	}
}
