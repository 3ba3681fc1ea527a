package identity

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weft/internal/peer"
)

const (
	certificatePrefix  = "weft-certificate-1"
	certificateVersion = 1
	certificateFixed   = 1 + 8 + 8 + 1
)

// Certificate is what a CA has signed about the key of one node. It does not contain the key: the signature covers it.
//
//	 0   1            9           17  18     18+n                                 -64
//	+---+------------+-----------+---+------+---+--------------------------------+-----------+
//	| 1 | not before | not after | n | name | k | prefixes: length, bits, address| signature |
//	| 1 | 8          | 8         | 1 | n    | 1 | 1, 1, 4 or 16, k times          | 64        |
//	+---+------------+-----------+---+------+---+--------------------------------+-----------+
//
// Numbers are big endian, times are seconds of Unix time. The signature covers the public key of the node, 32 bytes, and all that
// precedes the signature.
type Certificate struct {
	NotBefore, NotAfter time.Time // it is valid from the first to before the second
	Name                string    // that the node must have; empty: any
	Addresses           []netip.Prefix
	signature           [ed25519.SignatureSize]byte
}

// Terms are what a CA may restrict in a certificate.
type Terms struct {
	NotBefore, NotAfter time.Time      // to the second
	Name                string         // empty: the node may have any name
	Addresses           []netip.Prefix // underlay addresses at which the node may be, at most MaxAddresses; empty: anywhere
}

// Sign returns a certificate for the key of a request. The name of the request is only a proposal: the one of terms counts. Errors
// are about terms, and wrap ErrMalformed.
func (c CA) Sign(public [peer.KeySize]byte, terms Terms) (Certificate, error) {
	cert := Certificate{
		NotBefore: terms.NotBefore.UTC().Truncate(time.Second), NotAfter: terms.NotAfter.UTC().Truncate(time.Second), Name: terms.Name,
	}
	for _, p := range terms.Addresses {
		cert.Addresses = append(cert.Addresses, netip.PrefixFrom(p.Addr().Unmap(), p.Bits()).Masked())
	}
	if err := cert.checkFields(); err != nil {
		return Certificate{}, err
	}
	cert.signature = [ed25519.SignatureSize]byte(c.sign(certificateContext, cert.signed(public)))
	return cert, nil
}

// checkFields returns an error about a field that cannot be encoded.
func (c Certificate) checkFields() error {
	if !inRange(c.NotBefore) || !inRange(c.NotAfter) || !c.NotBefore.Before(c.NotAfter) {
		return fmt.Errorf("%w: a certificate that is valid from %s until %s", ErrMalformed, rfc3339(c.NotBefore), rfc3339(c.NotAfter))
	}
	if len(c.Addresses) > MaxAddresses {
		return fmt.Errorf("%w: %d prefixes in a certificate, at most %d", ErrMalformed, len(c.Addresses), MaxAddresses)
	}
	for _, p := range c.Addresses {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			return fmt.Errorf("%w: %s is no prefix of underlay addresses", ErrMalformed, p)
		}
	}
	return checkName(c.Name)
}

// body returns what precedes the signature.
func (c Certificate) body() []byte {
	b := make([]byte, 0, certificateFixed+len(c.Name)+1+18*len(c.Addresses)+ed25519.SignatureSize)
	b = append(b, certificateVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(c.NotBefore.Unix()))
	b = binary.BigEndian.AppendUint64(b, uint64(c.NotAfter.Unix()))
	b = append(b, byte(len(c.Name)))
	b = append(b, c.Name...)
	b = append(b, byte(len(c.Addresses)))
	for _, p := range c.Addresses {
		addr := p.Addr().AsSlice()
		b = append(b, byte(len(addr)), byte(p.Bits()))
		b = append(b, addr...)
	}
	return b
}

// signed returns the message that the CA signs for a key.
func (c Certificate) signed(public [peer.KeySize]byte) []byte { return append(public[:], c.body()...) }

// IsZero reports whether c is the zero Certificate, which stands for none.
func (c Certificate) IsZero() bool { return c.NotAfter.IsZero() }

// Encode returns the wire form, at most MaxCertificate bytes.
func (c Certificate) Encode() []byte { return append(c.body(), c.signature[:]...) }

// MaxCertificate is the length in bytes of the longest certificate.
const MaxCertificate = certificateFixed + MaxName + 1 + 18*MaxAddresses + ed25519.SignatureSize

// String returns the line of an identity file, without a line break.
func (c Certificate) String() string { return encodeLine(certificatePrefix, c.Encode()) }

// ParseCertificate reads the wire form. It does not check the signature; see Trust.Check. Errors wrap ErrMalformed.
func ParseCertificate(b []byte) (Certificate, error) {
	r := reader{rest: b}
	version := r.byte()
	c := Certificate{NotBefore: r.time(), NotAfter: r.time()}
	c.Name = string(r.bytes(int(r.byte())))
	for range r.byte() {
		length, bits := int(r.byte()), int(r.byte())
		addr, ok := netip.AddrFromSlice(r.bytes(length))
		if !ok {
			return Certificate{}, fmt.Errorf("%w: a certificate with an address of %d bytes", ErrMalformed, length)
		}
		c.Addresses = append(c.Addresses, netip.PrefixFrom(addr, bits))
	}
	copy(c.signature[:], r.bytes(len(c.signature)))
	switch {
	case r.short || len(r.rest) > 0:
		return Certificate{}, fmt.Errorf("%w: a certificate that is cut short or too long", ErrMalformed)
	case version != certificateVersion:
		return Certificate{}, fmt.Errorf("%w: a certificate of version %d, this build reads %d", ErrMalformed, version, certificateVersion)
	}
	if err := c.checkFields(); err != nil {
		return Certificate{}, err
	}
	return c, nil
}

// Allows reports whether a node with the certificate may be at an address.
func (c Certificate) Allows(addr netip.Addr) bool {
	return len(c.Addresses) == 0 || slices.ContainsFunc(c.Addresses, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) })
}

// RenewAt returns when a new certificate is due: a third of its life before the end.
func (c Certificate) RenewAt() time.Time { return c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3) }

// reader takes fields from the front of bytes. After a read beyond their end all further ones return zeros.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) bytes(n int) []byte {
	if r.short || n > len(r.rest) {
		r.short = true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// time reads seconds of Unix time. Those that no time.Time holds count as a short read.
func (r *reader) time() time.Time {
	n := r.uint64()
	if n > maxTime {
		r.short = true
		return time.Time{}
	}
	return time.Unix(int64(n), 0).UTC()
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }
