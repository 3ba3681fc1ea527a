package node

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/identity"
	"weft/internal/secret"
)

// signFor returns an identity file for a key, with terms that change may change.
func signFor(t *testing.T, ca identity.CA, r *reloader, change func(*identity.Terms)) string {
	t.Helper()
	terms := identity.Terms{NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	if change != nil {
		change(&terms)
	}
	c, err := ca.Sign(r.identity.Public, terms)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "identity")
	if err := os.WriteFile(path, []byte(identity.File{CAs: []identity.CAKey{ca.Key()}, Certificate: c}.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestMoveFromASecretToAnIdentity: both can be added and removed while the node runs, as long as one of them stays.
func TestMoveFromASecretToAnIdentity(t *testing.T) {
	cfg := goodConfig()
	cfg.SecretFile = writeSecret(t, secret.Generate())
	r, datapath, next := reloadable(t, cfg)
	reload := func(want api.Reload, kind api.NetworkKind, keys int) {
		t.Helper()
		got, err := r.Reload()
		if diff := cmp.Diff(want, got); diff != "" || err != nil || r.inUse().network() != kind || len(datapath.secrets) != keys {
			t.Errorf("%v: %s, %s, %d keys", err, diff, r.inUse().network(), len(datapath.secrets))
		}
	}
	ca := identity.GenerateCA()
	next.cfg.IdentityFile = signFor(t, ca, r, nil)
	reload(api.Reload{Applied: []string{"--identity"}, Restart: []string{}, Secrets: 1, Encrypted: true}, api.NetworkBoth, 2)
	if datapath.secrets[0].Fingerprint != ca.Key().Fingerprint() {
		t.Error("the key of the CA is not preferred")
	}
	next.cfg.SecretFile = ""
	reload(api.Reload{Applied: []string{"--secret-file"}, Restart: []string{}, Encrypted: true}, api.NetworkIdentities, 1)
	next.cfg.IdentityFile = signFor(t, ca, r, func(terms *identity.Terms) { terms.NotAfter = time.Now().Add(2 * time.Hour) }) // renewed
	reload(api.Reload{Applied: []string{"--identity"}, Restart: []string{}, Encrypted: true}, api.NetworkIdentities, 1)
	next.cfg.SecretFile, next.cfg.IdentityFile = cfg.SecretFile, ""
	reload(api.Reload{Applied: []string{"--secret-file", "--identity"}, Restart: []string{}, Secrets: 1, Encrypted: true},
		api.NetworkSecret, 1)
	next.cfg.SecretFile = ""
	if _, err := r.Reload(); err == nil || r.inUse().network() != api.NetworkSecret {
		t.Errorf("without either: %v, %s; want a refusal", err, r.inUse().network())
	}
}

// TestIdentitiesThatCannotBeUsed: each is refused with the fix, and changes nothing.
func TestIdentitiesThatCannotBeUsed(t *testing.T) {
	cfg := goodConfig()
	cfg.SecretFile = writeSecret(t, secret.Generate())
	for name, tt := range map[string]struct {
		file func(r *reloader) string
		want string
	}{
		"another node": {func(r *reloader) string {
			other, _, _ := reloadable(t, cfg)
			return signFor(t, identity.GenerateCA(), other, nil)
		}, "another node"},
		"another name": {func(r *reloader) string {
			return signFor(t, identity.GenerateCA(), r, func(terms *identity.Terms) { terms.Name = "b" })
		}, `requires "b"`},
		"another address": {func(r *reloader) string {
			return signFor(t, identity.GenerateCA(), r, func(terms *identity.Terms) {
				terms.Addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
			})
		}, "127.0.0.1"},
		"missing":    {func(*reloader) string { return filepath.Join(t.TempDir(), "none") }, "no such file"},
		"a secret":   {func(*reloader) string { return cfg.SecretFile }, "weft-ca-1"},
		"empty file": {func(*reloader) string { return writeSecret(t, "") }, "weft-ca-1"},
	} {
		t.Run(name, func(t *testing.T) {
			r, datapath, next := reloadable(t, cfg)
			next.cfg.IdentityFile = tt.file(r)
			_, err := r.Reload()
			e, ok := errors.AsType[*hint.Error](err)
			if !ok || e.Subject != "--identity" || e.Hint == "" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want a refusal of --identity with %q", err, tt.want)
			}
			if datapath.secrets != nil || r.inUse().certified() {
				t.Error("something has changed")
			}
		})
	}
}

func TestExpiredIdentityStarts(t *testing.T) {
	cfg := goodConfig()
	cfg.SecretFile = writeSecret(t, secret.Generate())
	r, _, next := reloadable(t, cfg)
	next.cfg.IdentityFile = signFor(t, identity.GenerateCA(), r, func(terms *identity.Terms) { terms.NotAfter = time.Now().Add(-time.Minute) })
	if _, err := r.Reload(); err != nil {
		t.Errorf("%v: pods of the node need it until a new certificate comes by reload", err)
	}
}

func TestListsOfRevokedNodesAreKept(t *testing.T) {
	f := revokedFile(filepath.Join(t.TempDir(), "revocations"))
	if lists, err := f.Load(); err != nil || len(lists) != 0 {
		t.Fatal(lists, err)
	}
	ca := identity.GenerateCA()
	list, err := ca.SignRevocations(3, time.Now(), []identity.Revocation{{ID: [8]byte{1}, At: time.Now()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Save([]identity.Revocations{list, list}); err != nil {
		t.Fatal(err)
	}
	lists, err := f.Load()
	if err != nil || len(lists) != 2 || !lists[1].SignedBy(ca.Key()) || lists[0].Version != 3 {
		t.Fatal(lists, err)
	}
	if err := os.WriteFile(string(f), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Load(); !errors.Is(err, identity.ErrMalformed) {
		t.Errorf("a damaged file: %v", err)
	}
}
