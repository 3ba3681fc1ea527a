// Package csr packs requests and certificates of weft nodes into what the CertificateSigningRequests of Kubernetes transport: PKCS#10
// (RFC 2986) and X.509 (RFC 5280). docs/PROTOCOL.md, chapter 13, has the format.
//
//	spec.request         PKCS#10: common name = name of the node, URI weft-node-request-1:KEY, signed by a key for this request only
//	status.certificate   X.509 for that key: common name and validity of the certificate, URI weft-certificate-1:CERTIFICATE
//
// Both are envelopes: their keys and signatures prove nothing. The certificate inside is signed by the CA of weft, as always.
package csr

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"

	"weft/internal/identity"
	"weft/internal/peer"
)

// SignerName is the signer of requests from nodes of weft.
const SignerName = "weft.network/node"

// Types of PEM blocks (RFC 7468).
const (
	requestBlock     = "CERTIFICATE REQUEST"
	certificateBlock = "CERTIFICATE"
)

// Schemes of the URIs. After the colon follows base64 with the URL alphabet, without padding (RFC 4648, section 5).
const (
	requestScheme     = identity.RequestPrefix
	certificateScheme = "weft-certificate-1"
)

// maxPEM is the size in bytes of the largest PEM text that is read.
const maxPEM = 16 << 10

// ErrMalformed is wrapped by the errors about texts that are not of this format.
var ErrMalformed = errors.New("csr: malformed")

// EncodeRequest returns the text for spec.request.
func EncodeRequest(r identity.Request) ([]byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("csr: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: r.Name}, URIs: []*url.URL{encodeURI(requestScheme, r.Public[:])},
	}, private)
	if err != nil {
		return nil, fmt.Errorf("csr: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: requestBlock, Bytes: der}), nil
}

// ParseRequest reads a spec.request. Errors wrap ErrMalformed.
func ParseRequest(text []byte) (identity.Request, error) {
	r, _, err := parseRequest(text)
	return r, err
}

func parseRequest(text []byte) (identity.Request, *x509.CertificateRequest, error) {
	der, err := decodePEM(text, requestBlock)
	if err != nil {
		return identity.Request{}, nil, err
	}
	outer, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = outer.CheckSignature()
	}
	if err != nil {
		return identity.Request{}, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(outer.DNSNames)+len(outer.IPAddresses)+len(outer.EmailAddresses) > 0 {
		return identity.Request{}, nil, fmt.Errorf("%w: a request of a node has no names but that of the node", ErrMalformed)
	}
	key, err := decodeURI(requestScheme, outer.URIs)
	if err != nil {
		return identity.Request{}, nil, err
	}
	if len(key) != peer.KeySize {
		return identity.Request{}, nil, fmt.Errorf("%w: a key of %d bytes", ErrMalformed, len(key))
	}
	r := identity.Request{Public: [peer.KeySize]byte(key), Name: outer.Subject.CommonName}
	if again, err := identity.ParseRequest(r.String()); err != nil || again != r {
		return identity.Request{}, nil, fmt.Errorf("%w: the common name %q is no name of a node", ErrMalformed, r.Name)
	}
	return r, outer, nil
}

// EncodeCertificate returns the text for status.certificate, as the answer to a spec.request.
func EncodeCertificate(request []byte, c identity.Certificate) ([]byte, error) {
	_, outer, err := parseRequest(request)
	if err != nil {
		return nil, err
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("csr: %w", err)
	}
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: SignerName}, PublicKey: public}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: c.Name}, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true, URIs: []*url.URL{encodeURI(certificateScheme, c.Encode())},
	}, parent, outer.PublicKey, private)
	if err != nil {
		return nil, fmt.Errorf("csr: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: der}), nil
}

// serial returns a random positive number of 16 bytes (RFC 5280, section 4.1.2.2).
func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:])  // never returns an error: it crashes the program instead
	b[0] = b[0]&0x7f | 0x40 // positive, and never zero
	return new(big.Int).SetBytes(b[:])
}

// ParseCertificate reads a status.certificate. The result is to be checked by identity.Trust: the envelope proves nothing. Errors wrap
// ErrMalformed.
func ParseCertificate(text []byte) (identity.Certificate, error) {
	der, err := decodePEM(text, certificateBlock)
	if err != nil {
		return identity.Certificate{}, err
	}
	outer, err := x509.ParseCertificate(der)
	if err != nil {
		return identity.Certificate{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	encoded, err := decodeURI(certificateScheme, outer.URIs)
	if err != nil {
		return identity.Certificate{}, err
	}
	c, err := identity.ParseCertificate(encoded)
	if err != nil {
		return identity.Certificate{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return c, nil
}

// decodePEM returns the content of the only PEM block of a text.
func decodePEM(text []byte, kind string) ([]byte, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, len(text), maxPEM)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%w: no PEM block %q", ErrMalformed, kind)
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, fmt.Errorf("%w: more than one PEM block", ErrMalformed)
	}
	return block.Bytes, nil
}

func encodeURI(scheme string, content []byte) *url.URL {
	return &url.URL{Scheme: scheme, Opaque: base64.RawURLEncoding.EncodeToString(content)}
}

// decodeURI returns the content of the only URI.
func decodeURI(scheme string, uris []*url.URL) ([]byte, error) {
	if len(uris) != 1 || uris[0].Scheme != scheme {
		return nil, fmt.Errorf("%w: it must have one URI, of the scheme %q", ErrMalformed, scheme)
	}
	content, err := base64.RawURLEncoding.Strict().DecodeString(uris[0].Opaque)
	if err != nil || *uris[0] != *encodeURI(scheme, content) {
		return nil, fmt.Errorf("%w: the URI %q is truncated or mistyped", ErrMalformed, scheme)
	}
	return content, nil
}
