package csr

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"weft/internal/identity"
	"weft/internal/peer"
)

var example = identity.Request{Public: [peer.KeySize]byte{0xff, 0xfe, 3: 1}, Name: "node1.example"}

// signed returns a certificate for the example, as long as certificates can be.
func signed(t testing.TB, ca identity.CA) identity.Certificate {
	t.Helper()
	now := time.Unix(1_700_000_000, 0)
	c, err := ca.Sign(example.Public, identity.Terms{
		NotBefore: now, NotAfter: now.Add(7 * 24 * time.Hour), Name: example.Name, Addresses: []netip.Prefix{
			netip.MustParsePrefix("2001:db8:1::/64"), netip.MustParsePrefix("2001:db8:2::/64"),
			netip.MustParsePrefix("2001:db8:3::/64"), netip.MustParsePrefix("2001:db8:4::/64"),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func request(t testing.TB, r identity.Request) []byte {
	t.Helper()
	text, err := EncodeRequest(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestRoundTrip: a request and a certificate arrive as they were sent.
func TestRoundTrip(t *testing.T) {
	text := request(t, example)
	if r, err := ParseRequest(text); err != nil || r != example {
		t.Fatalf("%v, %v", r, err)
	}
	ca := identity.GenerateCA()
	want := signed(t, ca)
	answer, err := EncodeCertificate(text, want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseCertificate(answer)
	if err != nil || got.String() != want.String() {
		t.Fatalf("%v, %v", got, err)
	}
	holder := identity.Holder{Public: example.Public, Name: example.Name, Named: true, Addr: netip.MustParseAddr("2001:db8:4::1")}
	if e := identity.NewTrust([]identity.CAKey{ca.Key()}).CheckParsed(got, holder, got.NotBefore); e != nil {
		t.Error(e)
	}
}

// TestAPIServerAccepts: the envelopes follow the rules of the API server (k8s.io/kubernetes/pkg/apis/certificates/validation): a
// request is one that parses, with a valid signature; a certificate consists of PEM blocks CERTIFICATE without headers that parse.
func TestAPIServerAccepts(t *testing.T) {
	text := request(t, example)
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		t.Fatalf("%s", text)
	}
	outer, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || outer.CheckSignature() != nil {
		t.Fatal(err)
	}
	answer, err := EncodeCertificate(text, signed(t, identity.GenerateCA()))
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(answer)
	if block == nil || block.Type != "CERTIFICATE" || len(block.Headers) > 0 || len(rest) > 0 {
		t.Fatalf("%s", answer)
	}
	certs, err := x509.ParseCertificates(block.Bytes)
	if err != nil || len(certs) != 1 || certs[0].IsCA || !certs[0].PublicKey.(ed25519.PublicKey).Equal(outer.PublicKey) {
		t.Fatalf("%+v, %v", certs, err)
	}
}

// TestRefusedRequests: requests that are not of a node are refused.
func TestRefusedRequests(t *testing.T) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	uri := encodeURI(requestScheme, example.Public[:])
	pemOf := func(change func(r *x509.CertificateRequest)) []byte {
		r := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "node1"}, URIs: []*url.URL{uri}}
		change(r)
		der, err := x509.CreateCertificateRequest(rand.Reader, r, private)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: requestBlock, Bytes: der})
	}
	good := pemOf(func(*x509.CertificateRequest) {})
	if _, err := ParseRequest(good); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"empty":        nil,
		"no PEM":       []byte("weft-node-request-1 AAAA"),
		"certificate":  bytes.ReplaceAll(good, []byte(requestBlock), []byte(certificateBlock)),
		"two blocks":   append(bytes.Clone(good), good...),
		"large":        append(bytes.Clone(good), bytes.Repeat([]byte("\n"), maxPEM)...),
		"no URI":       pemOf(func(r *x509.CertificateRequest) { r.URIs = nil }),
		"two URIs":     pemOf(func(r *x509.CertificateRequest) { r.URIs = []*url.URL{uri, uri} }),
		"other scheme": pemOf(func(r *x509.CertificateRequest) { r.URIs = []*url.URL{encodeURI(certificateScheme, example.Public[:])} }),
		"short key":    pemOf(func(r *x509.CertificateRequest) { r.URIs = []*url.URL{encodeURI(requestScheme, example.Public[:31])} }),
		"query": pemOf(func(r *x509.CertificateRequest) {
			r.URIs = []*url.URL{{Scheme: requestScheme, Opaque: uri.Opaque, RawQuery: "x"}}
		}),
		"DNS name":      pemOf(func(r *x509.CertificateRequest) { r.DNSNames = []string{"node2"} }),
		"long name":     pemOf(func(r *x509.CertificateRequest) { r.Subject.CommonName = strings.Repeat("x", 65) }),
		"control bytes": pemOf(func(r *x509.CertificateRequest) { r.Subject.CommonName = "a\x1b[2J" }),
	} {
		if _, err := ParseRequest(text); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzParse: no text panics, and what can be read is written again as the same.
func FuzzParse(f *testing.F) {
	text := request(f, example)
	answer, err := EncodeCertificate(text, signed(f, identity.GenerateCA()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(answer)
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRequest(b); err == nil {
			if again, err := ParseRequest(request(t, r)); err != nil || again != r {
				t.Errorf("%v is read again as %v: %v", r, again, err)
			}
		} else if !errors.Is(err, ErrMalformed) {
			t.Error(err)
		}
		if c, err := ParseCertificate(b); err == nil {
			answer, err := EncodeCertificate(text, c)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := ParseCertificate(answer); err != nil || again.String() != c.String() {
				t.Errorf("%v is read again as %v: %v", c, again, err)
			}
		} else if !errors.Is(err, ErrMalformed) {
			t.Error(err)
		}
	})
}
