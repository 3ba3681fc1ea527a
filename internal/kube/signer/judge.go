package signer

import (
	"fmt"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"weft/internal/identity"
	"weft/internal/kube/csr"
)

// Keys of spec.extra that the API server sets for the token of a pod, since Kubernetes 1.30.
const (
	nodeKey = "authentication.kubernetes.io/node-name"
	uidKey  = "authentication.kubernetes.io/node-uid"
)

// refusal is why a request is denied: reason and message of its condition.
type refusal struct{ reason, message string }

func refuse(reason, format string, args ...any) *refusal {
	return &refusal{reason, fmt.Sprintf(format, args...)}
}

// judge returns the request of a node for itself, or why it is none that may be signed.
func (s *Signer) judge(c *certificatesv1.CertificateSigningRequest, a authority) (identity.Request, *refusal) {
	account := "system:serviceaccount:" + s.cfg.Namespace + ":" + s.cfg.Account
	if c.Spec.Username != account {
		return identity.Request{}, refuse("OtherRequester", "%q requests it; only %s may", c.Spec.Username, account)
	}
	node := extra(c, nodeKey)
	if node == "" || extra(c, uidKey) == "" {
		return identity.Request{}, refuse("UnknownNode",
			"the token of the requester does not name one node: the API server must be of Kubernetes 1.30 or later")
	}
	r, err := csr.ParseRequest(c.Spec.Request)
	if err != nil {
		return identity.Request{}, refuse("Malformed", "%v", err)
	}
	if r.Name != node {
		return identity.Request{}, refuse("OtherNode", "node %s requests it for node %q", node, r.Name)
	}
	if slices.Contains(a.denied, node) {
		return identity.Request{}, refuse("DeniedNode", "the file %q of the signer lists node %s", deniedFile, node)
	}
	if at, revoked := a.revoked.Has(r.ID()); revoked {
		return identity.Request{}, refuse("Revoked", "the key of node %s was revoked on %s: remove its node.key, and ipam.db with it",
			node, at.UTC().Format(time.DateOnly))
	}
	return r, nil
}

// extra returns the only value of a key in spec.extra; empty if there is not exactly one.
func extra(c *certificatesv1.CertificateSigningRequest, key string) string {
	if values := c.Spec.Extra[key]; len(values) == 1 {
		return values[0]
	}
	return ""
}
