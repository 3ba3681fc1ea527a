package node

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"weft/internal/health"
	"weft/internal/identity"
	"weft/mesh"
	"weft/mesh/admission"
)

// identityFindings reports what is wrong with signed identities at now: of this node, and of those that it has refused.
func (c clusterFindings) identityFindings(members []mesh.Member, now time.Time) []health.Finding {
	s := c.mesh.IdentityStatus()
	if s.Signed.Certificate.IsZero() {
		return nil
	}
	var findings []health.Finding
	for _, m := range members {
		if m.Self {
			findings = append(findings, ownIdentityFindings(s, m, now)...)
		}
	}
	findings = append(findings, incompleteFindings(members)...)
	for _, n := range c.mesh.RefusedNodes() {
		findings = append(findings, refusedFinding(n))
	}
	return findings
}

// incompleteFindings reports nodes that were admitted without a certificate.
func incompleteFindings(members []mesh.Member) []health.Finding {
	var without []string
	for _, m := range members {
		if isLivePeer(m) && m.Certificate.IsZero() {
			without = append(without, fmt.Sprintf("%s (%s)", m.Name, m.Addr))
		}
	}
	if len(without) == 0 {
		return nil
	}
	return []health.Finding{{
		Code:   health.IdentitiesIncomplete,
		Text:   fmt.Sprintf("Nodes were admitted by the secret alone, and cannot be shut out one by one: %s.", strings.Join(without, ", ")),
		Remedy: "Give them an --identity; then remove the --secret-file of every node.",
	}}
}

// ownIdentityFindings reports what is wrong with the certificate of this node.
func ownIdentityFindings(s admission.Status, self mesh.Member, now time.Time) []health.Finding {
	c := s.Signed.Certificate
	_, err := s.Trust.Check(c.Encode(), identity.Holder{Public: self.Public, Name: self.Name, Named: true, Addr: self.Addr}, now)
	switch {
	case err == nil && now.Before(c.RenewAt()):
		return nil
	case err == nil:
		return []health.Finding{{
			Code: health.IdentityExpiresSoon, Text: fmt.Sprintf("The certificate of this node expires at %s.", c.NotAfter.Format(time.RFC3339)),
			Remedy: identityRemedy(identity.Expired, "this node"),
		}}
	case err.Refusal == identity.Expired:
		return []health.Finding{{
			Code:   health.IdentityExpired,
			Text:   fmt.Sprintf("The certificate of this node has expired at %s: the other nodes refuse it.", c.NotAfter.Format(time.RFC3339)),
			Remedy: identityRemedy(identity.Expired, "this node"),
		}}
	default:
		return []health.Finding{{
			Code: health.IdentityUnusable, Text: fmt.Sprintf("The other nodes refuse this one: it %s (%s).", err.Refusal, err.Detail),
			Remedy: identityRemedy(err.Refusal, "this node"),
		}}
	}
}

// refusedFinding reports a node that was refused.
func refusedFinding(n admission.Refused) health.Finding {
	name := n.ID.String()
	if n.Name != "" {
		name = fmt.Sprintf("%s (%s)", n.Name, n.ID)
	}
	if n.Addr.IsValid() {
		name += " at " + n.Addr.String()
	}
	text := fmt.Sprintf("Node %s is not admitted: it %s", name, n.Err.Refusal)
	if n.Err.Detail != "" {
		text += ": " + n.Err.Detail
	}
	return health.Finding{Code: health.NodeRefused, Key: n.ID.String(), Text: text + ".", Remedy: identityRemedy(n.Err.Refusal, "that node")}
}

// refusedTarget changes a finding about a target that was not joined because of an identity, and reports whether it is one.
func refusedTarget(f *health.Finding, t mesh.TargetStatus) bool {
	if e, ok := errors.AsType[*identity.Error](t.Err); ok {
		f.Code, f.Text = health.TargetRefused, fmt.Sprintf("Target %s is not joined: the node there %s.", t.Target, e.Refusal)
		f.Remedy = identityRemedy(e.Refusal, "that node")
		return true
	}
	if !errors.Is(t.Err, mesh.ErrRefused) {
		return false
	}
	f.Code, f.Text = health.TargetRefused, fmt.Sprintf("Target %s is not joined: the node there does not admit this one", t.Target)
	if e, ok := errors.AsType[*mesh.RefusedError](t.Err); ok && e.Identity != 0 {
		f.Text += fmt.Sprintf(", which %s.", e.Identity)
		f.Remedy = identityRemedy(e.Identity, "this node")
		return true
	}
	f.Text += "."
	f.Remedy = "Run \"weft status\" there: it shows the reason."
	return true
}

// identityRemedy returns what an operator can do to get a node admitted. In Kubernetes the signer issues the certificates.
func identityRemedy(r identity.Refusal, node string) string {
	signed := []identity.Refusal{identity.NoCertificate, identity.Unreadable, identity.OtherCA, identity.Expired}
	if inKubernetes() && slices.Contains(signed, r) {
		return "Find out why " + node + " has no certificate of the signer: \"kubectl get csr\", \"kubectl describe csr NAME\", " +
			"\"kubectl -n kube-system logs deployment/weft-signer\"."
	}
	return r.Remedy(node)
}
