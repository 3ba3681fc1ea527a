package mesh

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// ErrSecret is wrapped by the errors about a node with which this one has no secret in common: each is a *SecretError.
var ErrSecret = errors.New("mesh: no secret in common")

// Mismatch is how the secrets of this node and another one do not fit.
type MismatchReason uint8

// The ways in which secrets do not fit. The zero Mismatch is invalid.
const (
	MismatchOther   MismatchReason = iota + 1 // both have secrets, and none in common
	MismatchThere                             // the other node has none
	MismatchHere                              // this node has none
	MismatchUnclear                           // what came cannot be opened: another secret's, a node's without one, or garbage
)

// String returns what is wrong, as the predicate of a sentence about the other node.
func (m MismatchReason) String() string {
	switch m {
	case MismatchOther:
		return "has another secret than this node"
	case MismatchThere:
		return "has no secret while this node has one"
	case MismatchHere:
		return "has a secret while this node has none"
	case MismatchUnclear:
		return "has another secret than this node, or none, or sends garbage"
	default:
		return "does not fit"
	}
}

// Mend returns what to do about it, as an imperative.
func (m MismatchReason) Remedy() string {
	switch m {
	case MismatchThere:
		return "start that node with a --secret-file that has a line of this node's"
	case MismatchHere:
		return "start this node with a --secret-file that has a line of that node's"
	default:
		return "put a line that both have into their --secret-file, and \"weft reload\" them"
	}
}

// SecretError is why the node at Addr and this one do not talk to each other.
type SecretError struct {
	Addr   netip.AddrPort
	Reason MismatchReason
}

// Error implements error.
func (e *SecretError) Error() string {
	return fmt.Sprintf("%v: the node at %s %s: %s", ErrSecret, e.Addr, e.Reason, e.Reason.Remedy())
}

// Is reports whether target is ErrSecret.
func (e *SecretError) Is(target error) bool { return target == ErrSecret }

// What memberlist says of secrets that do not fit. It wraps no error in another, so that there is only the text.
const (
	textNoKey   = "no installed keys could decrypt the message"
	textPlain   = "encryption is configured but remote state is not encrypted"
	textSealed  = "remote state is encrypted and encryption is not configured"
	textPacket  = "Decrypt packet failed: "
	textStream  = "failed to receive: "
	textAddress = " from="
)

// secretError returns the SecretError that an exchange of states with addr ended in, or err itself.
func secretError(addr netip.AddrPort, err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, known := range []struct {
		text string
		why  MismatchReason
	}{{textNoKey, MismatchOther}, {textSealed, MismatchHere}, {textPlain, MismatchThere}} {
		if strings.Contains(text, known.text) {
			return &SecretError{Addr: addr, Reason: known.why}
		}
	}
	return err
}

// strangerIn reads a line of memberlist's log: whether it says that something from addr was turned away because of its
// secret. What follows the known words may be the sender's.
func strangerIn(line string) (addr netip.Addr, why MismatchReason, ok bool) {
	rest, packet := strings.CutPrefix(line, textPacket)
	if packet {
		why = MismatchUnclear // a packet without a seal looks like one with another
	} else if rest, ok = strings.CutPrefix(line, textStream); !ok {
		return netip.Addr{}, 0, false
	}
	switch {
	case packet:
	case strings.HasPrefix(rest, textNoKey):
		why = MismatchOther
	case strings.HasPrefix(rest, textPlain):
		why = MismatchThere
	case strings.HasPrefix(rest, textSealed):
		why = MismatchHere
	default:
		return netip.Addr{}, 0, false
	}
	from, err := netip.ParseAddrPort(rest[strings.LastIndex(rest, textAddress)+len(textAddress):])
	return from.Addr().Unmap(), why, err == nil
}
