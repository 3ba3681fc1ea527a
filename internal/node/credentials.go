package node

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/identity"
	"weft/internal/secret"
	"weft/internal/settings"
	"weft/mesh"
	"weft/mesh/admission"
	"weft/router/session"
)

// credentials are what this node shows to other nodes, and by what it admits them. Without any, nothing is sealed.
type credentials struct {
	secrets []secret.Secret
	signed  identity.File // zero: no identity
}

// loadCredentials reads the secret file and the identity file.
func loadCredentials(cfg *settings.Config) (c credentials, err error) {
	if c.secrets, err = cfg.LoadSecrets(); err != nil {
		return credentials{}, err
	}
	c.signed, err = cfg.LoadIdentity()
	return c, err
}

// certified reports whether the node has an identity.
func (c credentials) certified() bool { return len(c.signed.CAs) > 0 }

// sealed reports whether traffic is sealed.
func (c credentials) sealed() bool { return len(c.secrets) > 0 || c.certified() }

// network returns what admits nodes.
func (c credentials) network() api.NetworkKind {
	switch {
	case c.certified() && len(c.secrets) > 0:
		return api.NetworkBoth
	case c.certified():
		return api.NetworkIdentities
	case len(c.secrets) > 0:
		return api.NetworkSecret
	default:
		return api.NetworkPlain
	}
}

// sessionSecrets returns the keys of handshakes as the router takes them, in the same order as the mesh has those of gossip: those of
// CAs first.
func (c credentials) sessionSecrets() []session.Secret {
	list := make([]session.Secret, 0, len(c.signed.CAs)+len(c.secrets))
	for _, ca := range c.signed.CAs {
		list = append(list, session.Secret{Key: ca.SessionKey(), Fingerprint: ca.Fingerprint()})
	}
	for _, s := range c.secrets {
		list = append(list, session.Secret{Key: s.SessionKey(), Fingerprint: s.Fingerprint()})
	}
	return list
}

// check returns a *hint.Error if the certificate cannot be used by a node, whatever the time.
func (c credentials) check(key mesh.Identity, name string, at netip.Addr, now time.Time) error {
	if !c.certified() {
		return nil
	}
	if n := len(c.signed.CAs) + len(c.secrets); n > mesh.MaxKeys {
		return hint.Refuse("--identity", "Remove CAs or secrets that are not needed.", "%d CAs and secrets, at most %d", n, mesh.MaxKeys)
	}
	err := identity.NewTrust(c.signed.CAs).CheckParsed(c.signed.Certificate, identity.Holder{
		Public: key.Public, Name: name, Named: true, Addr: at,
	}, now)
	if err == nil {
		if len(name) > identity.MaxName {
			return hint.Refuse("--name", "Choose one of at most 64 bytes: a node with an identity needs that.", "%q is too long", name)
		}
		return nil
	}
	switch err.Refusal {
	case identity.OtherCA:
		return hint.Refuse("--identity",
			"Sign the output of \"weft identity request\" of this node, and check that the file has the line of that CA.",
			"the certificate is of another CA or for another node than %s", key.ID)
	case identity.OtherName:
		return hint.Refuse("--identity", "Start with that --name, or sign a certificate with another --name.",
			"the name of this node is %q, the certificate requires %q", name, c.signed.Certificate.Name)
	case identity.OtherAddress:
		return hint.Refuse("--identity", "Set --advertise, or sign a certificate with the address in --addresses.", "this node is at %s, the "+
			"certificate allows %v", at, c.signed.Certificate.Addresses)
	default: // of time: a condition reports it
		return nil
	}
}

// sameSigned reports whether two identity files say the same.
func sameSigned(a, b identity.File) bool {
	return slices.Equal(a.CAs, b.CAs) && a.Certificate.String() == b.Certificate.String()
}

// revokedFile is the file of the lists of revoked nodes, one a line. It implements admission.Store.
type revokedFile string

// Load implements admission.Store.
func (f revokedFile) Load() (lists []identity.Revocations, err error) {
	text, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		list, err := identity.ParseRevocationsLine(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		lists = append(lists, list)
	}
	return lists, nil
}

// Save implements admission.Store.
func (f revokedFile) Save(lists []identity.Revocations) error {
	var b strings.Builder
	for _, list := range lists {
		_, _ = fmt.Fprintln(&b, list)
	}
	return renameio.WriteFile(string(f), []byte(b.String()), 0o600)
}

// Revocations implements apiserver.Cluster.
func (c *cluster) Revocations() api.Revocations {
	doc, trust := api.Revocations{Lists: []string{}}, c.mesh.IdentityStatus().Trust
	for _, ca := range trust.CAs() {
		if list := trust.List(ca); !list.IsZero() {
			doc.Lists = append(doc.Lists, list.String())
		}
	}
	return doc
}

// Revoke implements apiserver.Cluster: it adopts a signed list of revoked nodes, if it is newer than the one that the node has.
func (c *cluster) Revoke(in api.RevocationsRequest) (api.RevocationsResult, error) {
	list, err := identity.ParseRevocationsLine(in.List)
	if err != nil {
		return api.RevocationsResult{}, hint.New(hint.Invalid, "Hand over a list that \"weft revoke\" has signed.", "%w", err)
	}
	adopted, err := c.mesh.Revoke(list)
	switch {
	case errors.Is(err, mesh.ErrNoIdentity):
		return api.RevocationsResult{}, hint.New(hint.Refused, "Run the command on a node that was started with --identity.", "%w", err)
	case errors.Is(err, identity.ErrMalformed):
		return api.RevocationsResult{}, hint.New(hint.Refused, "Sign the list with a CA that the --identity file of this node lists.", "%w", err)
	case err != nil:
		return api.RevocationsResult{}, err
	}
	trust := c.mesh.IdentityStatus().Trust
	for _, ca := range trust.CAs() {
		if list.SignedBy(ca) {
			list = trust.List(ca)
		}
	}
	return api.RevocationsResult{Version: list.Version, Nodes: len(list.Entries), Adopted: adopted}, nil
}

// identityDoc returns the identity of a node as a document; nil if it has none.
func identityDoc(s admission.Status) *api.Identity {
	c := s.Signed.Certificate
	if c.IsZero() {
		return nil
	}
	doc := &api.Identity{
		NotBefore: c.NotBefore, Expires: c.NotAfter, RenewAt: c.RenewAt(), Name: c.Name, Addresses: append([]netip.Prefix{}, c.Addresses...),
		CAs: []api.IdentityCA{}, Epoch: s.Epoch,
	}
	for _, ca := range s.Signed.CAs {
		list := s.Trust.List(ca)
		doc.CAs = append(doc.CAs, api.IdentityCA{CA: ca.String(), ListVersion: list.Version, Revoked: len(list.Entries)})
	}
	return doc
}
