package cadir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/internal/hint"
	"weft/internal/identity"
	"weft/internal/peer"
)

var now = time.Unix(1_700_000_000, 0)

// initDir returns a new CA in a folder.
func initDir(t *testing.T) (*Dir, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca")
	d, err := Init(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d, path
}

func request(id byte, name string) identity.Request {
	return identity.Request{Public: [peer.KeySize]byte{id}, Name: name}
}

func terms(d time.Duration, name string) identity.Terms {
	return identity.Terms{NotBefore: now, NotAfter: now.Add(d), Name: name}
}

// wantHint fails the test unless err has a hint and contains a text.
func wantHint(t *testing.T, err error, text string) {
	t.Helper()
	e, ok := errors.AsType[*hint.Error](err)
	if !ok || e.Hint == "" || !strings.Contains(err.Error(), text) {
		t.Errorf("%v, want an error with a hint and %q", err, text)
	}
}

func TestSignAndRevoke(t *testing.T) {
	d, path := initDir(t)
	a, b := request(1, "a"), request(2, "b")
	for _, r := range []identity.Request{a, b} {
		f, err := d.Sign(r, terms(time.Hour, r.Name), now)
		if err != nil || f.CAs[0] != d.Key() {
			t.Fatal(f, err)
		}
		holder := identity.Holder{Public: r.Public, Name: r.Name, Named: true}
		if err := identity.NewTrust(f.CAs).CheckParsed(f.Certificate, holder, now); err != nil {
			t.Error(err)
		}
	}
	for i, name := range []string{"a", b.ID().String(), "Aw" + strings.Repeat("A", 41) + "="} {
		list, _, err := d.Revoke(name, identity.Revocations{}, now)
		if err != nil || list.Version != uint64(i+1) || len(list.Entries) != i+1 || !list.SignedBy(d.Key()) {
			t.Fatalf("%s: %v, %v", name, list, err)
		}
	}
	_, err := d.Sign(a, terms(time.Hour, "a"), now)
	wantHint(t, err, "was revoked")
	_, _, err = d.Revoke("unknown-node", identity.Revocations{}, now)
	wantHint(t, err, "unknown-node")

	d.Close()
	again, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if list, err := again.Revocations(); err != nil || list.Version != 3 {
		t.Error(list, err)
	}
}

func TestAmbiguousName(t *testing.T) {
	d, _ := initDir(t)
	for i := range byte(2) {
		if _, err := d.Sign(request(i, "same"), terms(time.Hour, ""), now); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := d.Revoke("same", identity.Revocations{}, now)
	wantHint(t, err, "2 nodes")
}

// TestOldCopyOfTheFolder: a folder from a backup removes no entry from the list that the nodes have.
func TestOldCopyOfTheFolder(t *testing.T) {
	d, path := initDir(t)
	known, _, err := d.Revoke(peer.ID{1}.String(), identity.Revocations{}, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(path, revocationsFile)); err != nil {
		t.Fatal(err)
	}
	list, _, err := d.Revoke(peer.ID{2}.String(), known, now)
	if err != nil || list.Version != 2 || len(list.Entries) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	foreign, err := identity.GenerateCA().SignRevocations(9, now, []identity.Revocation{{ID: peer.ID{3}, At: now}})
	if err != nil {
		t.Fatal(err)
	}
	if list, _, err = d.Revoke(peer.ID{4}.String(), foreign, now); err != nil || list.Version != 3 || len(list.Entries) != 3 {
		t.Errorf("with a list of another CA: %v, %v", list, err)
	}
}

// TestExpiredEntriesAreLeftOut: lists do not grow without limit.
func TestExpiredEntriesAreLeftOut(t *testing.T) {
	d, _ := initDir(t)
	for i := range byte(3) {
		at := now.Add(time.Duration(i) * time.Hour)
		if _, err := d.Sign(request(i, ""), identity.Terms{NotBefore: at, NotAfter: at.Add(time.Hour)}, at); err != nil {
			t.Fatal(err)
		}
		if _, _, err := d.Revoke(request(i, "").ID().String(), identity.Revocations{}, at); err != nil {
			t.Fatal(err)
		}
	}
	list, _, err := d.Revoke(peer.ID{9}.String(), identity.Revocations{}, now.Add(2*time.Hour+25*time.Hour))
	if err != nil || len(list.Entries) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	if _, revoked := list.Has(request(2, "").ID()); !revoked {
		t.Error("an entry is gone while a certificate of its node is valid")
	}
}

// TestOldCopyKeepsEntries: a folder from a backup does not have the latest certificate of a revoked node. The entry stays until that one
// has expired, too.
func TestOldCopyKeepsEntries(t *testing.T) {
	d, path := initDir(t)
	const day = 24 * time.Hour
	sign := func(at time.Time) {
		t.Helper()
		if _, err := d.Sign(request(1, ""), identity.Terms{NotBefore: at, NotAfter: at.Add(90 * day)}, at); err != nil {
			t.Fatal(err)
		}
	}
	sign(now)
	backup, err := os.ReadFile(filepath.Join(path, issuedFile))
	if err != nil {
		t.Fatal(err)
	}
	sign(now.Add(60 * day))
	known, _, err := d.Revoke(request(1, "").ID().String(), identity.Revocations{}, now.Add(70*day))
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(os.Remove(filepath.Join(path, revocationsFile)), os.WriteFile(filepath.Join(path, issuedFile), backup, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	for _, after := range []time.Duration{100 * day, 149 * day} {
		if known, _, err = d.Revoke(peer.ID{9}.String(), known, now.Add(after)); err != nil {
			t.Fatal(err)
		}
		if _, revoked := known.Has(request(1, "").ID()); !revoked {
			t.Errorf("after %s the node is admitted again, with a certificate that is valid", after)
		}
	}
	if known, _, err = d.Revoke(peer.ID{9}.String(), known, now.Add(200*day)); err != nil || len(known.Entries) != 1 {
		t.Errorf("the entry stays: %v, %v", known, err)
	}
}

func TestFoldersThatAreRefused(t *testing.T) {
	d, path := initDir(t)
	d.Close()
	_, err := Init(path)
	wantHint(t, err, "has a CA already")
	_, err = Open(t.Context(), t.TempDir())
	wantHint(t, err, "no such file")
	key := filepath.Join(path, keyFile)
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(key, 0o640); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), path)
	wantHint(t, err, "mode 0640")
	if err := errors.Join(os.Chmod(key, 0o600), os.WriteFile(key, []byte("damaged"), 0o600)); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), path)
	wantHint(t, err, "weft-ca-key-1")
}

func TestDamagedRecords(t *testing.T) {
	d, path := initDir(t)
	if err := os.WriteFile(filepath.Join(path, issuedFile), []byte("damaged\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := d.Revoke("name", identity.Revocations{}, now)
	wantHint(t, err, "damaged")
	other, _ := initDir(t)
	list, _, err := other.Revoke(peer.ID{1}.String(), identity.Revocations{}, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, revocationsFile), []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = d.Revocations()
	wantHint(t, err, "not signed by this CA")
}
