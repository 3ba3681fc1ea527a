package podlink

import "strings"

// Parts of an alias. They are on existing links, so they must not change.
const (
	leasedAlias    = "weft: pod"
	delegatedAlias = "weft: addresses by another IPAM plugin"
	pendingPart    = "pending"
	runtimePart    = "by "
	holderPart     = "for "
	aliasSeparator = "; "
)

// maxAlias is the length of the longest alias of a link: IFALIASZ without the zero byte.
const maxAlias = 255

// Origin is what the alias of a host end records about its pair (ip-link(8), "alias"). Links of older versions have the zero
// Origin, or only Delegated.
type Origin struct {
	// Delegated is true if another address manager than the daemon allocated the addresses, so that the daemon does not expect
	// a lease.
	Delegated bool
	// Pending is true until Confirm: the program that adds the pair has not reported it to its caller yet.
	Pending bool
	// Runtime names the program that asked for the pair: the path of its executable. Empty: unknown.
	Runtime string
	// Holder is the text of the holder (package holder), for pairs without a lease. Empty: unknown.
	Holder string
}

// alias returns the text form of o, empty for the zero Origin. Parts that do not fit into maxAlias bytes are left out.
func (o Origin) alias() string {
	if o == (Origin{}) {
		return ""
	}
	text := leasedAlias
	if o.Delegated {
		text = delegatedAlias
	}
	add := func(part string) {
		if len(text)+len(aliasSeparator)+len(part) <= maxAlias {
			text += aliasSeparator + part
		}
	}
	if o.Pending {
		add(pendingPart)
	}
	if o.Holder != "" {
		add(holderPart + o.Holder)
	}
	if o.Runtime != "" {
		add(runtimePart + o.Runtime) // last: a path may contain the separator
	}
	return text
}

// parseAlias is the inverse of alias. An alias that another program wrote is the zero Origin.
func parseAlias(text string) (o Origin) {
	first, rest, _ := strings.Cut(text, aliasSeparator)
	switch first {
	case leasedAlias:
	case delegatedAlias:
		o.Delegated = true
	default:
		return Origin{}
	}
	for rest != "" {
		if path, ok := strings.CutPrefix(rest, runtimePart); ok {
			o.Runtime = path
			break
		}
		var part string
		part, rest, _ = strings.Cut(rest, aliasSeparator)
		if part == pendingPart {
			o.Pending = true
		} else if holder, ok := strings.CutPrefix(part, holderPart); ok {
			o.Holder = holder
		}
	}
	return o
}
