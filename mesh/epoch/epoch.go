// Package epoch keeps the keys under which nodes with signed identities seal their gossip packets, and the lists of revoked nodes.
//
// An epoch is a random key that admitted nodes hand to each other. A node that is revoked does not get the next one. See
// docs/PROTOCOL.md, chapter 13, and docs/adr/0037-signed-identities.md.
//
//	epoch.go    an epoch, and its wire form
//	ring.go     the epochs that a node knows: one seals, those before it open for some seconds
//	message.go  the messages of the channel
//	keeper.go   the protocol: announce, request, hand over
//	spread.go   what the protocol sends, and when
//
// Nothing here reads a clock, sends anything or starts a goroutine.
package epoch

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"weft/internal/identity"
	"weft/internal/peer"
)

// KeySize is the length of the key of an epoch in bytes.
const KeySize = 32

// ErrMalformed is wrapped by the errors about messages that cannot be read.
var ErrMalformed = errors.New("epoch: malformed")

// Name identifies an epoch. It does not reveal the key. The zero Name stands for none.
type Name [8]byte

// List identifies the list of revoked nodes of one CA that was in force when an epoch was made.
type List struct {
	CA      uint32 // fingerprint
	Version uint64 // 0: the maker knew the CA, and no list of it
}

// Epoch is a key that seals gossip packets. Epochs are values; Lists must not be changed.
type Epoch struct {
	Number uint64 // one more than that of the epoch before it; 0 if its maker knew none
	Maker  peer.ID
	Made   time.Time     // to the second, by the clock of its maker
	Key    [KeySize]byte // never printed
	Lists  []List        // of all CAs that the maker trusts, ordered by CA
}

// Format implements fmt.Formatter: all verbs print the name and the number.
func (e Epoch) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "epoch %x(%d)", e.Name(), e.Number) }

// epochFixed is the length in bytes of an epoch without lists.
const (
	epochFixed = 8 + 8 + 8 + KeySize
	listSize   = 4 + 8
)

// maxTime is the latest time in an epoch: the last second of the year 9999.
const maxTime = 253402300799

// nameLabel separates the hash in a Name from other hashes.
const nameLabel = "weft epoch 1"

// Name returns the name of the epoch: the first 8 bytes of a hash of all its fields.
func (e Epoch) Name() Name {
	sum := sha256.Sum256(append([]byte(nameLabel), e.encode()...))
	return Name(sum[:])
}

// encode returns the wire form.
//
//	 0        8       16     24    56
//	+--------+-------+------+-----+---+------------------------+
//	| number | maker | made | key | k | lists: CA 4, version 8 |
//	+--------+-------+------+-----+---+------------------------+
func (e Epoch) encode() []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, epochFixed+1+listSize*len(e.Lists)), e.Number)
	b = append(b, e.Maker[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Made.Unix()))
	b = append(b, e.Key[:]...)
	return appendLists(b, e.Lists)
}

func appendLists(b []byte, lists []List) []byte {
	b = append(b, byte(len(lists)))
	for _, l := range lists {
		b = binary.BigEndian.AppendUint32(b, l.CA)
		b = binary.BigEndian.AppendUint64(b, l.Version)
	}
	return b
}

// parseEpoch reads the wire form.
func parseEpoch(b []byte) (Epoch, error) {
	if len(b) < epochFixed {
		return Epoch{}, fmt.Errorf("%w: an epoch of %d bytes", ErrMalformed, len(b))
	}
	made := binary.BigEndian.Uint64(b[16:])
	if made > maxTime {
		return Epoch{}, fmt.Errorf("%w: an epoch of the year 10000", ErrMalformed)
	}
	e := Epoch{
		Number: binary.BigEndian.Uint64(b), Maker: peer.ID(b[8:16]), Made: time.Unix(int64(made), 0).UTC(), Key: [KeySize]byte(b[24:56]),
	}
	var err error
	e.Lists, err = parseLists(b[epochFixed:])
	return e, err
}

// parseLists reads a count and that many lists, which end the input.
func parseLists(b []byte) ([]List, error) {
	if len(b) == 0 || int(b[0]) > identity.MaxCAs || len(b) != 1+int(b[0])*listSize {
		return nil, fmt.Errorf("%w: lists of an epoch", ErrMalformed)
	}
	var lists []List
	for b = b[1:]; len(b) > 0; b = b[listSize:] {
		lists = append(lists, List{CA: binary.BigEndian.Uint32(b), Version: binary.BigEndian.Uint64(b[4:])})
	}
	if !slices.IsSortedFunc(lists, compareLists) {
		return nil, fmt.Errorf("%w: lists of an epoch are not in order", ErrMalformed)
	}
	return lists, nil
}

func compareLists(a, b List) int {
	switch {
	case a.CA < b.CA:
		return -1
	case a.CA > b.CA:
		return +1
	default:
		return 0
	}
}

// listsOf returns the lists of a Trust in the form of an epoch.
func listsOf(t identity.Trust) (lists []List) {
	for _, ca := range t.CAs() {
		lists = append(lists, List{CA: ca.Fingerprint(), Version: t.List(ca).Version})
	}
	slices.SortFunc(lists, compareLists)
	return lists
}
