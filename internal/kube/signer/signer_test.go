package signer

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"weft/internal/hint"
	"weft/internal/identity"
	"weft/internal/kube/csr"
	"weft/internal/peer"
)

var now = time.Unix(1_800_000_000, 0)

// bench is a signer with a CA, on a fake API server.
type bench struct {
	*Signer
	t      *testing.T
	ca     identity.CA
	folder string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, ca: identity.GenerateCA(), folder: t.TempDir()}
	b.write(keyFile, b.ca.Line())
	b.write(publicFile, b.ca.Key().String())
	var err error
	b.Signer, err = New(Config{
		API:    fake.NewClientset(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: IssuedName}}),
		Folder: Folder(b.folder), Namespace: "kube-system", Account: "weft", Duration: DefaultDuration, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.folder, name), []byte(text+"\n"), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// request returns a request as the API server stores one of weft on a node, for a key that begins with a byte.
func (b *bench) request(name, node string, key byte) *certificatesv1.CertificateSigningRequest {
	b.t.Helper()
	text, err := csr.EncodeRequest(identity.Request{Public: [peer.KeySize]byte{key}, Name: node})
	if err != nil {
		b.t.Fatal(err)
	}
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: text, SignerName: csr.SignerName, Username: "system:serviceaccount:kube-system:weft",
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageKeyAgreement},
			Extra:  map[string]certificatesv1.ExtraValue{nodeKey: {node}, uidKey: {"uid-" + node}},
		},
	}
}

// decided creates a request, decides about it, and returns it as it is then.
func (b *bench) decided(c *certificatesv1.CertificateSigningRequest, at time.Time) *certificatesv1.CertificateSigningRequest {
	b.t.Helper()
	requests := b.cfg.API.CertificatesV1().CertificateSigningRequests()
	created, err := requests.Create(b.t.Context(), c, metav1.CreateOptions{})
	if err == nil {
		err = b.decide(b.t.Context(), created, at)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	after, err := requests.Get(b.t.Context(), c.Name, metav1.GetOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	return after
}

// refusedAs checks that a request has one condition, and no certificate.
func refusedAs(
	t *testing.T, c *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType, reason, message string,
) {
	t.Helper()
	last := c.Status.Conditions[max(len(c.Status.Conditions)-1, 0):]
	if len(c.Status.Certificate) > 0 || len(last) != 1 || last[0].Type != kind || last[0].Reason != reason ||
		!strings.Contains(last[0].Message, message) || last[0].Status != corev1.ConditionTrue {
		t.Errorf("%+v, want %s %s with %q", c.Status, kind, reason, message)
	}
}

// validity returns how long the certificate of a request is valid, after all checks of a node.
func (b *bench) validity(c *certificatesv1.CertificateSigningRequest) time.Duration {
	b.t.Helper()
	certificate, err := csr.ParseCertificate(c.Status.Certificate)
	if err != nil || !has(c, certificatesv1.CertificateApproved) {
		b.t.Fatalf("%v, %+v", err, c.Status)
	}
	r, err := csr.ParseRequest(c.Spec.Request)
	if err != nil {
		b.t.Fatal(err)
	}
	holder := identity.Holder{Public: r.Public, Name: r.Name, Named: true}
	if e := identity.NewTrust([]identity.CAKey{b.ca.Key()}).CheckParsed(certificate, holder, certificate.NotBefore); e != nil {
		b.t.Fatal(e)
	}
	if certificate.Name != extra(c, nodeKey) {
		b.t.Errorf("a certificate for %q", certificate.Name)
	}
	return certificate.NotAfter.Sub(certificate.NotBefore)
}

// TestSigned: weft gets a certificate for its own node, within the bounds of the signer.
func TestSigned(t *testing.T) {
	b := newBench(t)
	for name, tt := range map[string]struct {
		seconds int32
		want    time.Duration
	}{
		"default": {0, DefaultDuration}, "shorter": {86400, 24 * time.Hour}, "too-short": {600, MinDuration},
		"too-long": {1 << 30, DefaultDuration},
	} {
		c := b.request(name, "node-"+name, 1)
		if tt.seconds > 0 {
			c.Spec.ExpirationSeconds = &tt.seconds
		}
		if got := b.validity(b.decided(c, now)); got != tt.want {
			t.Errorf("%s: valid for %v, want %v", name, got, tt.want)
		}
	}
}

// TestDenied: all others are denied with the reason, also when a person has approved them.
func TestDenied(t *testing.T) {
	b := newBench(t)
	b.write(deniedFile, "node8\nnode9")
	list, err := b.ca.SignRevocations(1, now, []identity.Revocation{{ID: peer.FromPublicKey([peer.KeySize]byte{66}), At: now}})
	if err != nil {
		t.Fatal(err)
	}
	b.write(revocationsFile, list.String())
	for name, tt := range map[string]struct {
		change          func(c *certificatesv1.CertificateSigningRequest)
		reason, message string
	}{
		"another-account": {func(c *certificatesv1.CertificateSigningRequest) {
			c.Spec.Username = "system:serviceaccount:default:weft"
		}, "OtherRequester", "system:serviceaccount:kube-system:weft may"},
		"a-user":     {func(c *certificatesv1.CertificateSigningRequest) { c.Spec.Username = "weft" }, "OtherRequester", `"weft"`},
		"a-kubelet":  {func(c *certificatesv1.CertificateSigningRequest) { c.Spec.Username = "system:node:node1" }, "OtherRequester", "node1"},
		"no-node":    {func(c *certificatesv1.CertificateSigningRequest) { delete(c.Spec.Extra, nodeKey) }, "UnknownNode", "1.30"},
		"no-uid":     {func(c *certificatesv1.CertificateSigningRequest) { delete(c.Spec.Extra, uidKey) }, "UnknownNode", "1.30"},
		"other-node": {func(c *certificatesv1.CertificateSigningRequest) { c.Spec.Extra[nodeKey] = []string{"node2"} }, "OtherNode", "node2"},
		"two-nodes": {func(c *certificatesv1.CertificateSigningRequest) {
			c.Spec.Extra[nodeKey] = []string{"node1", "node2"}
		}, "UnknownNode", "one node"},
		"malformed": {func(c *certificatesv1.CertificateSigningRequest) { c.Spec.Request = []byte("x") }, "Malformed", "PEM"},
		"denied": {func(c *certificatesv1.CertificateSigningRequest) {
			*c = *b.request("denied", "node9", 1)
		}, "DeniedNode", "node9"},
		"revoked": {func(c *certificatesv1.CertificateSigningRequest) {
			*c = *b.request("revoked", "node1", 66)
		}, "Revoked", "node.key"},
	} {
		t.Run(name, func(t *testing.T) {
			c := b.request(name, "node1", 1)
			tt.change(c)
			refusedAs(t, b.decided(c, now), certificatesv1.CertificateDenied, tt.reason, tt.message)
			c.Name += "-approved"
			add(c, certificatesv1.CertificateApproved, refusal{"KubectlApprove", ""}, now)
			refusedAs(t, b.decided(c, now), certificatesv1.CertificateFailed, tt.reason, tt.message)
		})
	}
}

// TestOtherSigners: requests of other signers, and those that are decided, stay as they are.
func TestOtherSigners(t *testing.T) {
	b := newBench(t)
	other := b.request("other", "node1", 1)
	other.Spec.SignerName = "kubernetes.io/kube-apiserver-client"
	denied := b.request("denied", "node1", 1)
	add(denied, certificatesv1.CertificateDenied, refusal{"KubectlDeny", ""}, now)
	for _, c := range []*certificatesv1.CertificateSigningRequest{other, denied} {
		if after := b.decided(c, now); len(after.Status.Certificate) > 0 || len(after.Status.Conditions) != len(c.Status.Conditions) {
			t.Errorf("%s: %+v", c.Name, after.Status)
		}
	}
}

// TestOneKeyPerNode: a Node object gets certificates for one key, until they have expired or it is another object of that name. The
// ConfigMap names all keys that have a certificate.
func TestOneKeyPerNode(t *testing.T) {
	b := newBench(t)
	b.validity(b.decided(b.request("first", "node1", 1), now))
	b.validity(b.decided(b.request("renewed", "node1", 1), now.Add(time.Hour)))
	refusedAs(t, b.decided(b.request("second", "node1", 2), now.Add(2*time.Hour)), certificatesv1.CertificateDenied, "OtherKey", IssuedName)
	b.validity(b.decided(b.request("neighbor", "node2", 2), now))
	again := b.request("again", "node1", 3)
	again.Spec.Extra[uidKey] = []string{"uid-of-a-new-object"}
	b.validity(b.decided(again, now.Add(3*time.Hour)))
	configMap, err := b.issued.api.Get(t.Context(), IssuedName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(configMap.Data["node1"]), "\n"); len(lines) != 2 ||
		!strings.HasPrefix(lines[0], peer.FromPublicKey([peer.KeySize]byte{3}).String()) ||
		!strings.HasPrefix(lines[1], peer.FromPublicKey([peer.KeySize]byte{1}).String()) {
		t.Errorf("%q", lines)
	}
	b.validity(b.decided(b.request("later", "node1", 2), now.Add(8*24*time.Hour)))
	if configMap, err = b.issued.api.Get(t.Context(), IssuedName, metav1.GetOptions{}); err != nil || len(configMap.Data) != 1 {
		t.Errorf("%v, %v: expired entries stay", configMap.Data, err)
	}
}

// TestFolder: without the CA the signer does not start, and while a file cannot be read it signs nothing.
func TestFolder(t *testing.T) {
	b := newBench(t)
	for name, text := range map[string]string{
		keyFile: "weft-ca-key-1 AAAA", publicFile: identity.GenerateCA().Key().String(), revocationsFile: "weft-revocations-1 AAAA",
	} {
		path := filepath.Join(b.folder, name)
		before, _ := os.ReadFile(path)
		b.write(name, text)
		if _, err := New(b.cfg); err == nil {
			t.Errorf("%s: accepted", name)
		} else if e, ok := errors.AsType[*hint.Error](err); !ok || e.Subject != path || e.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
		if err := b.decide(t.Context(), b.request(name, "node1", 1), now); err == nil {
			t.Errorf("%s: signed", name)
		}
		if err := errors.Join(os.Remove(path)); err != nil {
			t.Fatal(err)
		}
		if len(before) > 0 {
			b.write(name, string(before))
		}
	}
	cfg := b.cfg
	cfg.Duration = MinDuration - 1
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "duration") {
		t.Error(err)
	}
}

// TestRun: requests from before the start and after it are signed, and a failure is tried again.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		requests := b.cfg.API.CertificatesV1().CertificateSigningRequests()
		create := func(name, node string) {
			t.Helper()
			if _, err := requests.Create(t.Context(), b.request(name, node, 1), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		signed := func(name string) bool {
			c, err := requests.Get(t.Context(), name, metav1.GetOptions{})
			return err == nil && len(c.Status.Certificate) > 0
		}
		create("before", "node1")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Run(ctx) }()
		time.Sleep(time.Second)
		create("after", "node2")
		time.Sleep(time.Second)
		if !signed("before") || !signed("after") {
			t.Errorf("before the start: %v, after it: %v", signed("before"), signed("after"))
		}
		b.write(revocationsFile, "x")
		create("later", "node3")
		time.Sleep(time.Second)
		if signed("later") {
			t.Error("signed without a readable list")
		}
		if err := os.Remove(filepath.Join(b.folder, revocationsFile)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * retryPeriod)
		if !signed("later") {
			t.Error("not tried again")
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// FuzzRecord: no line panics, and those that can be read are written again as the same.
func FuzzRecord(f *testing.F) {
	f.Add(record{"node1", "uid", peer.ID{1}, now}.String())
	f.Fuzz(func(t *testing.T, line string) {
		r, err := parseRecord("node1", line)
		if err != nil {
			return
		}
		if again, err := parseRecord("node1", r.String()); err != nil || again.id != r.id || again.uid != r.uid {
			t.Errorf("%q is written as %q: %v", line, r, err)
		}
	})
}
