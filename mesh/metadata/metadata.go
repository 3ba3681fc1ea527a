// Package metadata is the wire form of what each node publishes about itself through memberlist (docs/PROTOCOL.md, section 3.3). It is
// pure: its functions may be called concurrently.
package metadata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/internal/printable"
)

// Versions of weft's own protocol (datapath and gossip channels) that this build supports.
const (
	ProtocolMin = 1
	ProtocolMax = 1
)

// MaxName is the length in bytes of the longest nickname that fits a node's metadata.
const MaxName = 255

// ErrMalformed is wrapped by Parse's errors.
var ErrMalformed = errors.New("mesh: node metadata")

// Node is the metadata that each node publishes through memberlist: at most 512 bytes.
//
//	 0         1       2           4          6          14         22             26           58
//	+---------+-------+-----------+----------+----------+----------+--------------+------------+----------+---------+-------------+----
//	| format 1| flags | data port | min, max | started  | instance | capabilities | public key | nickname | accepts | cluster IDs | ext
//	+---------+-------+-----------+----------+----------+----------+--------------+------------+----------+---------+-------------+----
//
// Numbers are big endian. The nickname is a length byte and that many bytes. The fingerprints of the secrets that the node
// accepts are a count byte and 4 bytes each; the metadata of a node that has none may end before the count. The cluster
// IDs are a count byte and 8 bytes each, two short hashes; the metadata of a node that has none may end before the count.
//
// Extensions follow until the end: a byte for the type, one for the length, and a value of that length. Unknown types are
// skipped. Of two extensions of one type the later one counts.
//
//	type 1: VNI, 3 bytes; 0 stands for none
//	type 2: certificate, see package identity
//	type 3: address ranges: the prefix length and the length of the address, a byte each, and the address, for each range
//	type 4: version of the program, text
//	type 5: what direct routing to the node needs, see package direct
//	type 6: MAC of the node's bridge, 6 bytes: answers to clients outside of the overlay go back to it, see package inward
//	type 7: domain of the node's names, text; without it: weft.local
//
// Ranges, version and domain are for people only. They and types 5 and 6 are left out where the metadata would be too long with them.
type Node struct {
	Leaving      bool
	DataPort     uint16
	ProtoMin     uint8
	ProtoMax     uint8
	Started      time.Time // when this run of the node began, by its own clock
	Instance     uint64    // random for each run: distinguishes two processes with one key
	Capabilities uint32    // bits that describe the datapath
	Public       [peer.KeySize]byte
	Name         string
	Accepts      []uint32    // fingerprints of secrets, at most 255
	ClusterIDs   []ClusterID // at most MaxClusterIDs
	Certificate  []byte      // see package identity; empty: none
	VNI          uint32      // of the VXLAN frames that the node accepts, 24 bits; 0: it accepts none
	Direct       []byte      // see package direct, at most 255 bytes; empty: the node takes no part
	Gateway      ether.Addr  // see package inward; zero: the node is none
	Ranges       []netip.Prefix
	Version      string // at most 64 bytes
	DNSDomain    string // of names, at most 64 bytes; empty: the default
}

// maxLen is the length of the longest metadata that memberlist accepts.
const maxLen = 512

// maxText is the length in bytes of the longest version and of the longest domain that are published.
const maxText = 64

const (
	format      = 1
	flagLeaving = 1
	fixedLen    = 2 + 2 + 2 + 8 + 8 + 4 + peer.KeySize + 1
)

// Types of extensions.
const (
	extensionVNI         = 1
	extensionCertificate = 2
	extensionRanges      = 3
	extensionVersion     = 4
	extensionDirect      = 5
	extensionGateway     = 6
	extensionDomain      = 7
)

// MaxClusterIDs is how many cluster IDs, one a range, fit.
const MaxClusterIDs = 16

// ClusterID identifies the bootstrap of one address range, by short hashes: of the range, and of its first division.
// Two nodes are of different clusters when they have different IDs for one range.
type ClusterID struct{ Range, By uint32 }

// vniLen is the length of a VNI in bytes (RFC 7348, section 5).
const vniLen = 3

// Encode returns the wire form of m. A nickname longer than MaxName is cut.
func (m Node) Encode() []byte {
	b := make([]byte, 0, fixedLen+len(m.Name)+1+4*len(m.Accepts))
	var flags byte
	if m.Leaving {
		flags |= flagLeaving
	}
	b = append(b, format, flags)
	b = binary.BigEndian.AppendUint16(b, m.DataPort)
	b = append(b, m.ProtoMin, m.ProtoMax)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Started.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, m.Instance)
	b = binary.BigEndian.AppendUint32(b, m.Capabilities)
	b = append(b, m.Public[:]...)
	name := strings.ToValidUTF8(m.Name[:min(len(m.Name), MaxName)], "") // without a half character
	b = append(b, byte(len(name)))
	b = append(b, name...)
	b = append(b, byte(len(m.Accepts)))
	for _, fingerprint := range m.Accepts {
		b = binary.BigEndian.AppendUint32(b, fingerprint)
	}
	b = append(b, byte(len(m.ClusterIDs)))
	b = AppendClusterIDs(b, m.ClusterIDs)
	if m.VNI != 0 {
		b = append(b, extensionVNI, vniLen, byte(m.VNI>>16), byte(m.VNI>>8), byte(m.VNI))
	}
	if len(m.Certificate) > 0 {
		b = append(b, extensionCertificate, byte(len(m.Certificate)))
		b = append(b, m.Certificate...)
	}
	b = appendIfShort(b, extensionDirect, m.Direct)
	if !m.Gateway.IsZero() {
		b = appendIfShort(b, extensionGateway, m.Gateway[:])
	}
	b = appendIfShort(b, extensionDomain, []byte(m.DNSDomain[:min(len(m.DNSDomain), maxText)]))
	var ranges []byte
	for _, r := range m.Ranges {
		ranges = append(ranges, byte(r.Bits()), byte(r.Addr().BitLen()/8))
		ranges = append(ranges, r.Addr().AsSlice()...)
	}
	b = appendIfShort(b, extensionRanges, ranges)
	return appendIfShort(b, extensionVersion, []byte(m.Version[:min(len(m.Version), maxText)]))
}

// AppendClusterIDs appends the wire form of cluster IDs: 8 bytes each.
func AppendClusterIDs(b []byte, ids []ClusterID) []byte {
	for _, c := range ids {
		b = binary.BigEndian.AppendUint32(b, c.Range)
		b = binary.BigEndian.AppendUint32(b, c.By)
	}
	return b
}

// ClusterIDsOf reads cluster IDs, at most MaxClusterIDs of them. It ignores what follows the last one.
func ClusterIDsOf(b []byte) (ids []ClusterID) {
	for ; len(b) >= 8 && len(ids) < MaxClusterIDs; b = b[8:] {
		ids = append(ids, ClusterID{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])})
	}
	return ids
}

// appendIfShort appends an extension, unless it is empty or the metadata would be too long with it.
func appendIfShort(b []byte, kind byte, value []byte) []byte {
	if len(value) == 0 || len(value) > math.MaxUint8 || len(b)+2+len(value) > maxLen {
		return b
	}
	b = append(b, kind, byte(len(value)))
	return append(b, value...)
}

// Parse parses the wire form. Characters of the nickname that are not printable become dots. Errors wrap ErrMalformed.
func Parse(b []byte) (Node, error) {
	if len(b) < fixedLen {
		return Node{}, fmt.Errorf("%w: %d bytes, want at least %d", ErrMalformed, len(b), fixedLen)
	}
	if b[0] != format {
		return Node{}, fmt.Errorf("%w: format %d, this build reads %d", ErrMalformed, b[0], format)
	}
	m := Node{
		Leaving:      b[1]&flagLeaving != 0,
		DataPort:     binary.BigEndian.Uint16(b[2:]),
		ProtoMin:     b[4],
		ProtoMax:     b[5],
		Started:      time.Unix(0, int64(binary.BigEndian.Uint64(b[6:]))),
		Instance:     binary.BigEndian.Uint64(b[14:]),
		Capabilities: binary.BigEndian.Uint32(b[22:]),
		Public:       [peer.KeySize]byte(b[26:58]),
	}
	n := int(b[58])
	rest := b[fixedLen:]
	if len(rest) < n || !utf8.Valid(rest[:n]) {
		return Node{}, fmt.Errorf("%w: nickname cut short or not UTF-8", ErrMalformed)
	}
	m.Name, rest = printable.Text(string(rest[:n])), rest[n:]
	if len(rest) == 0 {
		return m, nil
	}
	n, rest = int(rest[0]), rest[1:]
	if len(rest) < 4*n {
		return Node{}, fmt.Errorf("%w: fingerprints cut short", ErrMalformed)
	}
	for i := range n {
		m.Accepts = append(m.Accepts, binary.BigEndian.Uint32(rest[4*i:]))
	}
	if rest = rest[4*n:]; len(rest) == 0 {
		return m, nil
	}
	n, rest = int(rest[0]), rest[1:]
	if n > MaxClusterIDs || len(rest) < 8*n {
		return Node{}, fmt.Errorf("%w: cluster IDs cut short", ErrMalformed)
	}
	m.ClusterIDs = ClusterIDsOf(rest[:8*n])
	if err := m.parseExtensions(rest[8*n:]); err != nil {
		return Node{}, err
	}
	return m, nil
}

// parseExtensions parses what follows the cluster IDs. Errors wrap ErrMalformed.
func (m *Node) parseExtensions(b []byte) error {
	for len(b) > 0 {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return fmt.Errorf("%w: extension cut short", ErrMalformed)
		}
		kind, value := b[0], b[2:2+int(b[1])]
		b = b[2+len(value):]
		switch kind {
		case extensionVNI:
			if len(value) != vniLen {
				return fmt.Errorf("%w: VNI of %d bytes", ErrMalformed, len(value))
			}
			m.VNI = uint32(value[0])<<16 | uint32(value[1])<<8 | uint32(value[2])
		case extensionCertificate:
			m.Certificate = append([]byte(nil), value...) // nil of an empty one, which stands for none
		case extensionDirect:
			m.Direct = append([]byte(nil), value...)
		case extensionGateway:
			if len(value) != len(m.Gateway) {
				return fmt.Errorf("%w: MAC of %d bytes", ErrMalformed, len(value))
			}
			m.Gateway = ether.Addr(value)
		case extensionRanges:
			ranges, err := parseRanges(value)
			if err != nil {
				return err
			}
			m.Ranges = ranges
		case extensionVersion:
			m.Version = textOf(value)
		case extensionDomain:
			m.DNSDomain = textOf(value)
		default: // of a later build
		}
	}
	return nil
}

// textOf returns the text in a value, for people.
func textOf(value []byte) string {
	return printable.Text(strings.ToValidUTF8(string(value[:min(len(value), maxText)]), ""))
}

// parseRanges parses the value of the extension with the ranges.
func parseRanges(b []byte) (ranges []netip.Prefix, err error) {
	for len(b) > 0 {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return nil, fmt.Errorf("%w: range cut short", ErrMalformed)
		}
		addr, ok := netip.AddrFromSlice(b[2 : 2+int(b[1])])
		prefix := netip.PrefixFrom(addr, int(b[0]))
		if !ok || !prefix.IsValid() {
			return nil, fmt.Errorf("%w: invalid range", ErrMalformed)
		}
		ranges, b = append(ranges, prefix), b[2+int(b[1]):]
	}
	return ranges, nil
}

// CheckCompatible returns why a node with metadata m cannot be a peer of this build, or nil.
func (m Node) CheckCompatible() error {
	if m.ProtoMin > ProtocolMax || m.ProtoMax < ProtocolMin {
		return fmt.Errorf("%w: it supports protocol %d to %d, this node %d to %d: upgrade the older one",
			ErrMalformed, m.ProtoMin, m.ProtoMax, ProtocolMin, ProtocolMax)
	}
	return nil
}
