// Package peer defines the IDs of the nodes of a weft network.
package peer

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// KeySize is the length of a node's static X25519 public key in bytes.
const KeySize = 32

// ErrBadID is the error, wrapped, of ParseID for text that is not an ID.
var ErrBadID = errors.New("peer: not an ID of 16 hexadecimal digits")

// ID identifies a node: the first 8 bytes of the SHA-256 of its static public key.
// The zero ID stands for no node. IDs are comparable, and ordered by Compare.
type ID [8]byte

// FromPublicKey returns the ID of the node that holds the private half of public.
func FromPublicKey(public [KeySize]byte) ID {
	sum := sha256.Sum256(public[:])
	return ID(sum[:8])
}

// ParseID parses the 16 hexadecimal digits that String returns. Its errors wrap ErrBadID.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != hex.EncodedLen(len(id)) {
		return ID{}, fmt.Errorf("%w: %q", ErrBadID, s)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("%w: %q", ErrBadID, s)
	}
	return id, nil
}

// IsZero reports whether id is the zero ID, which stands for no node.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders IDs by their bytes: it returns -1 if id is before other, 0 if they are equal and +1 if id is after other.
func (id ID) Compare(other ID) int {
	for i := range id {
		switch {
		case id[i] < other[i]:
			return -1
		case id[i] > other[i]:
			return +1
		}
	}
	return 0
}

// String returns id as 16 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText implements encoding.TextMarshaler in the format of String; the zero ID is empty text.
func (id ID) MarshalText() ([]byte, error) {
	if id.IsZero() {
		return nil, nil
	}
	return []byte(id.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler; empty text is the zero ID.
func (id *ID) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*id = ID{}
		return nil
	}
	parsed, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
