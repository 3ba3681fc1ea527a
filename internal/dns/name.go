package dns

import (
	"errors"
	"fmt"
	"strings"
)

// Zone is the domain of all names, fully qualified.
const Zone = "weft.local."

// Bounds of a name without its domain.
const (
	maxName   = 200
	maxLabel  = 63 // RFC 1035, 2.3.4
	maxLabels = 8  // the table counts every name below each of its parents: see table.parents
)

// ErrName is wrapped by the errors about text that is not a name.
var ErrName = errors.New("dns: not a name")

// ParseName returns the name in s in lower case and without the domain, with which s may end. A name has at most 200 bytes
// and consists of 1 to 8 labels, separated by dots. A label consists of 1 to 63 ASCII letters, digits and hyphens, and does
// not begin or end with a hyphen (RFC 1123, 2.1). Errors wrap ErrName.
func ParseName(s string) (string, error) {
	zone := strings.TrimSuffix(Zone, ".")
	name := strings.TrimSuffix(strings.ToLower(strings.TrimSuffix(s, ".")), "."+zone)
	if name == zone || !validName(name) {
		return "", fmt.Errorf("%w: %q", ErrName, s)
	}
	return name, nil
}

// validName reports whether name is a name in the form that ParseName returns.
func validName(name string) bool {
	if len(name) == 0 || len(name) > maxName || strings.Count(name, ".") >= maxLabels {
		return false
	}
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
