// Package dnsname makes names of DNS of the names that people and container runtimes give containers.
package dnsname

import "strings"

// maxLabel is the length of the longest label in bytes (RFC 1035, 2.3.4).
const maxLabel = 63

// Of returns the name for a container, as far as that is possible: in lower case, with hyphens in place of underscores, and without hyphens
// at the ends of labels. What it returns may still be no name, such as an empty one.
func Of(name string) string {
	labels := strings.Split(strings.ReplaceAll(strings.ToLower(name), "_", "-"), ".")
	for i, l := range labels {
		labels[i] = strings.Trim(l, "-")
	}
	return strings.Join(labels, ".")
}

// Label returns one label for a name: in lower case, with hyphens in place of all that a label cannot have, and cut to its length. It is
// empty where nothing is left.
func Label(name string) string {
	text := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-':
			return c
		case c >= 'A' && c <= 'Z':
			return c - 'A' + 'a'
		}
		return '-'
	}, name)
	return strings.Trim(text[:min(len(text), maxLabel)], "-")
}
