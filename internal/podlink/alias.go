package podlink

import "strings"

// Parts of an alias. They are on existing links, so they must not change.
const (
	leasedAlias    = "weft: pod"
	delegatedAlias = "weft: addresses by another IPAM plugin"
	pendingPart    = "pending"
	runtimePart    = "by "
	holderPart     = "for "
	noHairpinPart  = "no hairpin"
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
	// NoHairpin is true if the bridge must not send frames back to the pod; see Spec.Hairpin. Attach sets it.
	NoHairpin bool
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
	if o.NoHairpin {
		add(noHairpinPart)
	}
	if o.Holder != "" {
		add(holderPart + o.Holder)
	}
	if o.Runtime != "" {
		add(runtimePart + o.Runtime) // last: a path may contain the separator
	}
	return text
}

// ParseOrigin is the Origin of a host end with the given alias. An alias that another program wrote is the zero Origin.
func ParseOrigin(alias string) (o Origin) {
	first, rest, _ := strings.Cut(alias, aliasSeparator)
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
		switch {
		case part == pendingPart:
			o.Pending = true
		case part == noHairpinPart:
			o.NoHairpin = true
		case strings.HasPrefix(part, holderPart):
			o.Holder = strings.TrimPrefix(part, holderPart)
		}
	}
	return o
}
