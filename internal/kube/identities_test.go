package kube

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"weft/internal/hint"
	"weft/internal/identity"
	"weft/internal/kube/csr"
	"weft/internal/peer"
)

// signingServer is an API server with a signer behind it.
type signingServer struct {
	*fake.Clientset
	ca       identity.CA
	validity time.Duration // of the certificates
	deny     bool
	away     atomic.Bool // the signer answers nothing
	requests atomic.Int32
}

// newSigningServer returns a server that signs, and the identities of a node without one that trust its CA.
func newSigningServer(t *testing.T) (*signingServer, Identities) {
	t.Helper()
	s := &signingServer{Clientset: fake.NewClientset(), ca: identity.GenerateCA(), validity: 6 * time.Hour}
	s.PrependReactor("create", "certificatesigningrequests", func(a clienttesting.Action) (bool, runtime.Object, error) {
		c := a.(clienttesting.CreateAction).GetObject().(*certificatesv1.CertificateSigningRequest)
		c.Name = c.GenerateName + string('a'+s.requests.Add(1)) // the fake makes no names
		return true, c, errors.Join(s.answer(c), s.Tracker().Add(c))
	})
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "ca.pub"), s.ca.Key().String()+"\n")
	return s, Identities{
		API: s, Node: "node1", File: filepath.Join(dir, "identity"), CAFile: filepath.Join(dir, "ca.pub"), Log: slog.New(slog.DiscardHandler),
	}
}

func (s *signingServer) answer(c *certificatesv1.CertificateSigningRequest) error {
	switch {
	case s.away.Load():
		return nil
	case s.deny:
		c.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{
			Type: certificatesv1.CertificateDenied, Reason: "DeniedNode", Message: "the list has it",
		}}
		return nil
	}
	r, err := csr.ParseRequest(c.Spec.Request)
	if err != nil {
		return err
	}
	signed, err := s.ca.Sign(r.Public, identity.Terms{NotBefore: time.Now(), NotAfter: time.Now().Add(s.validity), Name: r.Name})
	if err != nil {
		return err
	}
	c.Status.Certificate, err = csr.EncodeCertificate(c.Spec.Request, signed)
	return err
}

// fileOf returns the identity file of a node; the zero File if there is none.
func fileOf(t *testing.T, i Identities) identity.File {
	t.Helper()
	text, err := os.ReadFile(i.File)
	if err != nil {
		return identity.File{}
	}
	f, err := identity.ParseFile(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

var ownRequest = identity.Request{Public: [peer.KeySize]byte{7}, Name: "node1"}

// TestIdentityIsRequested: a node without a certificate gets one, keeps it over restarts, and gets another for another key.
func TestIdentityIsRequested(t *testing.T) {
	s, i := newSigningServer(t)
	for range 2 {
		if err := i.Ensure(t.Context(), ownRequest, time.Now()); err != nil {
			t.Fatal(err)
		}
		if f := fileOf(t, i); s.requests.Load() != 1 || f.Certificate.Name != "node1" || len(f.CAs) != 1 || f.CAs[0] != s.ca.Key() {
			t.Fatalf("%d requests, %v", s.requests.Load(), f)
		}
	}
	other := identity.Request{Public: [peer.KeySize]byte{8}, Name: "node1"}
	if err := i.Ensure(t.Context(), other, time.Now()); err != nil || s.requests.Load() != 2 {
		t.Errorf("%d requests, %v", s.requests.Load(), err)
	}
	if err := i.Forget(); err != nil || !fileOf(t, i).Certificate.IsZero() {
		t.Error(err)
	}
}

// TestIdentityIsNotSigned: the error names the request and the signer, after the timeout or at once where a request is denied. A
// certificate that is valid is kept.
func TestIdentityIsNotSigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, i := newSigningServer(t)
		ensure := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			return i.Ensure(ctx, ownRequest, time.Now())
		}
		refused := func(err error, parts ...string) {
			t.Helper()
			e, ok := errors.AsType[*hint.Error](err)
			if !ok {
				t.Fatalf("%v is no refusal", err)
			}
			for _, part := range parts {
				if !strings.Contains(e.Error()+" "+e.Hint, part) {
					t.Errorf("%v; hint: %s: want %q", e, e.Hint, part)
				}
			}
		}
		s.away.Store(true)
		start := time.Now()
		refused(ensure(), "weft-node1-b", "not signed yet", "kubectl get csr", "deployment weft-signer")
		if waited := time.Since(start); waited != time.Minute {
			t.Errorf("waited %v", waited)
		}
		s.away.Store(false)
		s.deny = true
		refused(ensure(), "Denied", "DeniedNode", "the list has it", "kubectl get csr")
		s.deny = false
		before := s.ca
		s.ca = identity.GenerateCA()
		refused(ensure(), "not accepted", "ConfigMap weft-ca")
		s.ca = before
		if !fileOf(t, i).Certificate.IsZero() {
			t.Fatal("a refused certificate is used")
		}
		if err := ensure(); err != nil {
			t.Fatal(err)
		}
		s.away.Store(true)
		time.Sleep(5 * time.Hour) // due, and still valid
		if err := ensure(); err != nil {
			t.Errorf("without the signer: %v", err)
		}
		time.Sleep(time.Hour)
		refused(ensure(), "not signed yet")
		writeFile(t, i.CAFile, "")
		refused(ensure(), "create configmap weft-ca")
	})
}

// TestIdentityIsRenewed: the running agent renews before a third of the life is left, tries again after a failure, and does so at
// once for another CA.
func TestIdentityIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, i := newSigningServer(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- i.run(ctx) }()
		time.Sleep(time.Hour + renewPeriod/2) // between two looks of the agent
		if s.requests.Load() != 0 {
			t.Error("a node without an identity requests one")
		}
		if err := i.Ensure(ctx, ownRequest, time.Now()); err != nil {
			t.Fatal(err)
		}
		first := fileOf(t, i).Certificate
		time.Sleep(3*time.Hour - time.Minute)
		if s.requests.Load() != 1 {
			t.Errorf("%d requests before half of the life", s.requests.Load())
		}
		s.away.Store(true)
		time.Sleep(time.Until(first.RenewAt()))
		failed := s.requests.Load()
		if failed < 2 || fileOf(t, i).Certificate.String() != first.String() {
			t.Errorf("%d requests at %v", failed, first.RenewAt())
		}
		s.away.Store(false)
		time.Sleep(renewTimeout + renewRetry + 2*renewPeriod)
		renewed := fileOf(t, i).Certificate
		if !renewed.NotAfter.After(first.NotAfter) || !time.Now().Before(first.NotAfter) {
			t.Errorf("valid until %v, then %v", first.NotAfter, renewed.NotAfter)
		}
		old := s.ca.Key()
		s.ca = identity.GenerateCA()
		writeFile(t, i.CAFile, s.ca.Key().String()+"\n"+old.String()+"\n")
		time.Sleep(renewRetry + 2*renewPeriod)
		if f := fileOf(t, i); len(f.CAs) != 2 || accepted(f.Certificate, f.CAs[:1], ownRequest, time.Now()) != nil {
			t.Errorf("after the CA was replaced: %v", f)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestPrepareIdentities: the configuration names the identity, beside a secret or without one, and contradicts plain.
func TestPrepareIdentities(t *testing.T) {
	p := newPrepare(t)
	s, i := newSigningServer(t)
	dir := filepath.Dir(p.ConfigFile)
	i.File = IdentityFile(dir)
	p.Identities, p.IdentityTimeout = &i, time.Minute
	identify := func() error { return errors.Join(p.identify(t.Context(), time.Now()), p.start(2)) }
	if err := identify(); err != nil {
		t.Fatal(err)
	}
	signed := "identity: " + i.File + "\nidentity-ca: " + i.CAFile + "\n"
	if got, _ := os.ReadFile(p.ConfigFile); string(got) != "init-peers: 2\nwatch-secret: true\n"+signed {
		t.Errorf("%q", got)
	}
	if sealed, _ := os.ReadFile(filepath.Join(dir, "sealed")); strings.TrimSpace(string(sealed)) != i.File {
		t.Errorf("protected by %q", sealed)
	}
	writeFile(t, p.SecretFile, "s3cret\n")
	if err := identify(); err != nil || s.requests.Load() != 1 {
		t.Fatalf("%d requests, %v: the node's key is another one", s.requests.Load(), err)
	}
	if got, _ := os.ReadFile(p.ConfigFile); string(got) != "init-peers: 2\nsecret-file: "+p.SecretFile+"\nwatch-secret: true\n"+signed {
		t.Errorf("%q", got)
	}
	p.Plain = true
	refusedWith(t, p.start(2), "WEFT_PLAIN", "WEFT_IDENTITIES")
	p.Plain = false
	if err := os.Remove(i.CAFile); err != nil {
		t.Fatal(err)
	}
	refusedWith(t, p.start(2), i.CAFile, "create configmap weft-ca")
	p.Identities = nil
	if err := identify(); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(p.ConfigFile); strings.Contains(string(got), "identity") || !fileOf(t, i).Certificate.IsZero() {
		t.Errorf("without an identity: %q", got)
	}
}
