package identity

import (
	"encoding/base64"
	"fmt"
	"strings"

	"weft/internal/peer"
)

// RequestPrefix begins the line of a request.
const RequestPrefix = "weft-node-request-1"

// Request is a request of a node for a certificate. It proves nothing: a certificate for a key is of no use without the private key,
// and an operator has to know anyway from which node a request comes.
type Request struct {
	Public [peer.KeySize]byte
	Name   string // nickname of the node; may be empty
}

// ID returns the ID of the node.
func (r Request) ID() peer.ID { return peer.FromPublicKey(r.Public) }

// String returns the request as a line, without a line break.
func (r Request) String() string {
	return strings.TrimSpace(encodeLine(RequestPrefix, r.Public[:]) + " " + r.Name)
}

// ParseRequest reads a line that String has returned. Errors wrap ErrMalformed.
func ParseRequest(line string) (Request, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(line), RequestPrefix+" ")
	if !ok {
		return Request{}, fmt.Errorf("%w: a request must start with %q", ErrMalformed, RequestPrefix)
	}
	encoded, name, _ := strings.Cut(strings.TrimSpace(rest), " ")
	raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) != peer.KeySize {
		return Request{}, fmt.Errorf("%w: the key in the request is truncated or mistyped", ErrMalformed)
	}
	r := Request{Public: [peer.KeySize]byte(raw), Name: strings.TrimSpace(name)}
	return r, checkName(r.Name)
}
