package identity

import "fmt"

// Refusal is why a certificate does not admit a node. Its numbers are on the wire (docs/PROTOCOL.md, 3.6). The zero Refusal is
// invalid.
type Refusal uint8

// The refusals, in the order in which they are checked.
const (
	Revoked Refusal = iota + 1
	NoCertificate
	Unreadable
	OtherCA
	NotYetValid
	Expired
	OtherName
	OtherAddress
)

// String returns the refusal as the predicate of a sentence about the node.
func (r Refusal) String() string {
	switch r {
	case Revoked:
		return "is revoked"
	case NoCertificate:
		return "has no certificate"
	case Unreadable:
		return "has a certificate that cannot be read"
	case OtherCA:
		return "has a certificate of another CA or for another key"
	case NotYetValid:
		return "has a certificate that is not valid yet"
	case Expired:
		return "has an expired certificate"
	case OtherName:
		return "does not have the name that its certificate requires"
	case OtherAddress:
		return "is at an address that its certificate does not allow"
	default:
		return "is refused for an unknown reason"
	}
}

// Code returns the refusal as a word for programs.
func (r Refusal) Code() string {
	switch r {
	case Revoked:
		return "revoked"
	case NoCertificate:
		return "no_certificate"
	case Unreadable:
		return "unreadable"
	case OtherCA:
		return "other_ca"
	case NotYetValid:
		return "not_yet_valid"
	case Expired:
		return "expired"
	case OtherName:
		return "other_name"
	case OtherAddress:
		return "other_address"
	default:
		return "unknown"
	}
}

// Remedy returns what an operator can do to get the node admitted, as a sentence. It calls the node "this node" or "that node".
func (r Refusal) Remedy(node string) string {
	switch r {
	case Revoked:
		return "If " + node + " is sound again, remove its node.key, and sign the new key that \"weft identity request\" prints there."
	case NoCertificate:
		return "Sign the output of \"weft identity request\" of " + node + " with \"weft ca sign\", and start it with --identity."
	case OtherCA:
		return "Sign the output of \"weft identity request\" of " + node + " again, with a CA that the --identity files of the others list."
	case NotYetValid:
		return "Synchronize the clocks of both nodes and of the host with the CA."
	case Expired:
		return "Sign the output of \"weft identity request\" of " + node + " again, replace its --identity file, and run \"weft reload\" on it."
	case OtherName:
		return "Start " + node + " with the --name of its certificate, or sign a certificate for its name."
	case OtherAddress:
		return "Start " + node + " with an --advertise that its certificate allows, or sign a certificate with its address in --addresses."
	default:
		return "Replace the --identity file of " + node + " by the output of \"weft ca sign\"."
	}
}

// Error is the error of a certificate that does not admit a node.
type Error struct {
	Refusal Refusal
	Detail  string // what was found, such as the time of expiry; empty: nothing to add
}

// Error implements error.
func (e *Error) Error() string {
	if e.Detail == "" {
		return "identity: the node " + e.Refusal.String()
	}
	return "identity: the node " + e.Refusal.String() + ": " + e.Detail
}

func refuse(r Refusal, format string, args ...any) *Error {
	return &Error{Refusal: r, Detail: fmt.Sprintf(format, args...)}
}
