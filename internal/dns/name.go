package dns

import (
	"errors"
	"fmt"
	"strings"
)

// Bounds of a name without its domain.
const (
	maxName   = 200
	maxLabel  = 63 // RFC 1035, 2.3.4
	maxLabels = 8  // the table counts every name below each of its parents: see table.parents
)

// MaxDomain is the length in bytes of the longest domain: with it, the longest name has the 253 bytes that DNS allows (RFC 1035, 2.3.4).
const MaxDomain = 253 - 1 - maxName

// ErrName is wrapped by the errors about text that is not a name.
var ErrName = errors.New("dns: not a name")

// ParseName returns the name in s in lower case and without the domain, with which s may end: domain is as RegistryConfig has it.
// A name has at most 200 bytes and consists of 1 to 8 labels, separated by dots. A label consists of 1 to 63 ASCII letters, digits
// and hyphens, and does not begin or end with a hyphen (RFC 1123, 2.1). Errors wrap ErrName.
func ParseName(s, domain string) (string, error) {
	name := strings.TrimSuffix(strings.ToLower(strings.TrimSuffix(s, ".")), "."+domain)
	if name == domain || !validName(name) {
		return "", fmt.Errorf("%w: %q", ErrName, s)
	}
	return name, nil
}

// validName reports whether name is a name in the form that ParseName returns.
func validName(name string) bool {
	return len(name) <= maxName && strings.Count(name, ".") < maxLabels && validLabels(name)
}

// validLabels reports whether name consists of labels of a host name in lower case.
func validLabels(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if !validLabel(label) {
			return false
		}
	}
	return true
}

func validLabel(label string) bool {
	if len(label) == 0 || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for _, c := range []byte(label) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
