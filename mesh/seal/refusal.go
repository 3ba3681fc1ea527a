package seal

import "fmt"

// Refusal is why a node refuses a stream: one byte, before the second message of the handshake in plain, after the third
// one in a Status. One that is not sealed may be forged on the path, where the stream could be ended as well.
type Refusal byte

// The reasons. The zero Refusal accepts.
const (
	Accepted       Refusal = 0
	RefusedNoKey   Refusal = 1 // the node has no secret
	RefusedKey     Refusal = 2 // the node has other secrets, or one of its members has
	RefusedVersion Refusal = 3
	RefusedBusy    Refusal = 4 // too many streams, or no room for a message
	RefusedMember  Refusal = 5 // the node does not admit this one
	RefusedMessage Refusal = 6 // the message cannot be used
)

// String returns the reason as the predicate of a sentence about the node that refuses.
func (r Refusal) String() string {
	switch r {
	case Accepted:
		return "accepts the stream"
	case RefusedNoKey:
		return "has no secret"
	case RefusedKey:
		return "has no secret in common with this one"
	case RefusedVersion:
		return "runs another version of weft"
	case RefusedBusy:
		return "is busy"
	case RefusedMember:
		return "does not admit this node"
	case RefusedMessage:
		return "cannot use the message"
	default:
		return fmt.Sprintf("refuses for the unknown reason %d", byte(r))
	}
}
