// Package identity has the formats of signed identities, and judges them: certificates that a certificate authority (CA) signs for
// node keys, requests for them, and lists of revoked nodes. docs/PROTOCOL.md, chapter 13, draws the bytes.
//
//	ca.go           the key pair of a CA, which signs certificates and lists
//	certificate.go  a certificate: validity, name and addresses, for the key of one node
//	request.go      a node asks for a certificate
//	file.go         the file of "weft up --identity": CAs and the certificate of this node
//	revocations.go  a list of revoked nodes
//	trust.go        CAs and lists together judge certificates
//	refusal.go      why a certificate does not admit a node
//
// Nothing here reads a clock or a file. Signatures are Ed25519 with a context (Ed25519ctx, RFC 8032), so that none of one purpose
// counts for another.
package identity

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of the formats.
const (
	// MaxName is the length in bytes of the longest name in a certificate: certificates have to fit the metadata of a node.
	MaxName = 64
	// MaxAddresses is the largest number of prefixes in a certificate, for the same reason.
	MaxAddresses = 4
	// MaxCAs is the largest number of CAs that a node trusts at once. The replacement of a CA needs two.
	MaxCAs = 4
	// Skew is how far the clock of a node may be behind that of the CA: certificates are accepted this long before their time.
	Skew = 5 * time.Minute
)

// ErrMalformed is wrapped by the errors about text and bytes that cannot be read.
var ErrMalformed = errors.New("identity: malformed")

// maxTime is the latest time in a certificate or a list: the last second of the year 9999.
const maxTime = 253402300799

// inRange reports whether a time can be encoded.
func inRange(t time.Time) bool { return t.Unix() >= 0 && t.Unix() <= maxTime }

// decodeLine returns the bytes in a line that consists of a prefix and standard base64.
func decodeLine(line, prefix string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(strings.TrimSpace(line), prefix+" ")
	if !ok {
		return nil, fmt.Errorf("%w: a line must start with %q", ErrMalformed, prefix)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return nil, fmt.Errorf("%w: a line of %q is truncated or mistyped", ErrMalformed, prefix)
	}
	return raw, nil
}

// encodeLine is the inverse of decodeLine, without a line break.
func encodeLine(prefix string, raw []byte) string {
	return prefix + " " + base64.StdEncoding.EncodeToString(raw)
}

// checkName returns an error about a name that cannot be in a certificate.
func checkName(name string) error {
	switch {
	case len(name) > MaxName:
		return fmt.Errorf("%w: a name of %d bytes, at most %d", ErrMalformed, len(name), MaxName)
	case !utf8.ValidString(name), strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("%w: the name %q has bytes that cannot be printed", ErrMalformed, name)
	case name != strings.TrimSpace(name):
		return fmt.Errorf("%w: the name %q begins or ends with a space", ErrMalformed, name)
	}
	return nil
}
