package node

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/health"
	"weft/internal/health/healthtest"
	"weft/internal/identity"
	"weft/internal/peer"
	"weft/internal/target"
	"weft/mesh"
	"weft/mesh/admission"
	"weft/mesh/seal"
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

// TestOwnIdentityFindings: a certificate is a condition from the time for its renewal on, and one that other nodes refuse.
func TestOwnIdentityFindings(t *testing.T) {
	ca, now := identity.GenerateCA(), time.Now()
	self := mesh.Member{Self: true, Name: "a", Public: [peer.KeySize]byte{1}, Addr: netip.MustParseAddr("192.0.2.1")}
	c, err := ca.Sign(self.Public, identity.Terms{NotBefore: now, NotAfter: now.Add(3 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	s := admission.Status{Signed: identity.File{Certificate: c}, Trust: identity.NewTrust([]identity.CAKey{ca.Key()})}
	healthtest.Want(t, "valid", ownIdentityFindings(s, self, now.Add(time.Minute)), "")
	healthtest.Want(t, "to renew", ownIdentityFindings(s, self, now.Add(150*time.Minute)), health.IdentityExpiresSoon, "weft identity request")
	healthtest.Want(t, "expired", ownIdentityFindings(s, self, now.Add(4*time.Hour)), health.IdentityExpired, "weft identity request")
	s.Trust = identity.NewTrust([]identity.CAKey{identity.GenerateCA().Key()})
	healthtest.Want(t, "of another CA", ownIdentityFindings(s, self, now.Add(time.Minute)), health.IdentityUnusable)
}

// TestIncompleteFindings: nodes without a certificate are named until they have one.
func TestIncompleteFindings(t *testing.T) {
	m := mesh.Member{Name: "b", State: mesh.StateAlive, Addr: netip.MustParseAddr("192.0.2.2")}
	healthtest.Want(t, "without", incompleteFindings([]mesh.Member{m}), health.IdentitiesIncomplete, "b (192.0.2.2)", "--identity")
	m.Certificate.NotAfter = time.Now()
	healthtest.Want(t, "with", incompleteFindings([]mesh.Member{m}), "")
}

// TestRefusedFindings: a node, and a target, that is not admitted is named with the reason.
func TestRefusedFindings(t *testing.T) {
	n := admission.Refused{ID: peer.ID{2}, Name: "b", Err: &identity.Error{Refusal: identity.Expired}}
	healthtest.Want(t, "node", []health.Finding{refusedFinding(n)}, health.NodeRefused, "Node b (", "weft identity request")
	refused := mesh.TargetStatus{Target: target.Target{Host: "b", Port: 6783},
		Err: &mesh.RefusedError{Reason: seal.RefusedMember, Identity: identity.NoCertificate}}
	healthtest.Want(t, "target", targetFindings([]mesh.TargetStatus{refused}), health.TargetRefused, "b:6783", "weft identity request")
	refused.Err = nil
	healthtest.Want(t, "joined", targetFindings([]mesh.TargetStatus{refused}), "")
}
