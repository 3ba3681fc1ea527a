package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"weft/internal/peer"
	"weft/internal/printable"
)

// Versions of weft's own protocol (datapath and gossip channels) that this build supports.
const (
	protocolMin = 1
	protocolMax = 1
)

// maxName is the length in bytes of the longest nickname that fits a node's metadata.
const maxName = 255

// errMeta is wrapped by parseMeta's errors.
var errMeta = errors.New("mesh: node metadata")

// meta is the metadata that each node publishes through memberlist: at most 512 bytes.
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
type meta struct {
	leaving      bool
	dataPort     uint16
	protoMin     uint8
	protoMax     uint8
	started      time.Time // when this run of the node began, by its own clock
	instance     uint64    // random for each run: distinguishes two processes with one key
	capabilities uint32    // Config.Capabilities
	public       [peer.KeySize]byte
	name         string
	accepts      []uint32    // fingerprints; this build writes at most MaxKeys
	clusterIDs   []ClusterID // at most MaxClusterIDs
	certificate  []byte      // see package identity; empty: none
	vni          uint32      // of the VXLAN frames that the node accepts, 24 bits; 0: it accepts none
}

const (
	metaFormat      = 1
	metaFlagLeaving = 1
	metaFixed       = 2 + 2 + 2 + 8 + 8 + 4 + peer.KeySize + 1
)

// Types of extensions.
const (
	extensionVNI         = 1
	extensionCertificate = 2
)

// vniLen is the length of a VNI in bytes (RFC 7348, section 5).
const vniLen = 3

// encode returns the wire form of m. A nickname longer than maxName is cut.
func (m meta) encode() []byte {
	b := make([]byte, 0, metaFixed+len(m.name)+1+4*len(m.accepts))
	var flags byte
	if m.leaving {
		flags |= metaFlagLeaving
	}
	b = append(b, metaFormat, flags)
	b = binary.BigEndian.AppendUint16(b, m.dataPort)
	b = append(b, m.protoMin, m.protoMax)
	b = binary.BigEndian.AppendUint64(b, uint64(m.started.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, m.instance)
	b = binary.BigEndian.AppendUint32(b, m.capabilities)
	b = append(b, m.public[:]...)
	name := strings.ToValidUTF8(m.name[:min(len(m.name), maxName)], "") // without a half character
	b = append(b, byte(len(name)))
	b = append(b, name...)
	b = append(b, byte(len(m.accepts)))
	for _, fingerprint := range m.accepts {
		b = binary.BigEndian.AppendUint32(b, fingerprint)
	}
	b = append(b, byte(len(m.clusterIDs)))
	for _, c := range m.clusterIDs {
		b = binary.BigEndian.AppendUint32(b, c.Range)
		b = binary.BigEndian.AppendUint32(b, c.By)
	}
	if m.vni != 0 {
		b = append(b, extensionVNI, vniLen, byte(m.vni>>16), byte(m.vni>>8), byte(m.vni))
	}
	if len(m.certificate) > 0 {
		b = append(b, extensionCertificate, byte(len(m.certificate)))
		b = append(b, m.certificate...)
	}
	return b
}

// parseMeta parses the wire form. Characters of the nickname that are not printable become dots. Errors wrap errMeta.
func parseMeta(b []byte) (meta, error) {
	if len(b) < metaFixed {
		return meta{}, fmt.Errorf("%w: %d bytes, want at least %d", errMeta, len(b), metaFixed)
	}
	if b[0] != metaFormat {
		return meta{}, fmt.Errorf("%w: format %d, this build reads %d", errMeta, b[0], metaFormat)
	}
	m := meta{
		leaving:      b[1]&metaFlagLeaving != 0,
		dataPort:     binary.BigEndian.Uint16(b[2:]),
		protoMin:     b[4],
		protoMax:     b[5],
		started:      time.Unix(0, int64(binary.BigEndian.Uint64(b[6:]))),
		instance:     binary.BigEndian.Uint64(b[14:]),
		capabilities: binary.BigEndian.Uint32(b[22:]),
		public:       [peer.KeySize]byte(b[26:58]),
	}
	n := int(b[58])
	rest := b[metaFixed:]
	if len(rest) < n || !utf8.Valid(rest[:n]) {
		return meta{}, fmt.Errorf("%w: nickname cut short or not UTF-8", errMeta)
	}
	m.name, rest = printable.Text(string(rest[:n])), rest[n:]
	if len(rest) == 0 {
		return m, nil
	}
	n, rest = int(rest[0]), rest[1:]
	if len(rest) < 4*n {
		return meta{}, fmt.Errorf("%w: fingerprints cut short", errMeta)
	}
	for i := range n {
		m.accepts = append(m.accepts, binary.BigEndian.Uint32(rest[4*i:]))
	}
	if rest = rest[4*n:]; len(rest) == 0 {
		return m, nil
	}
	n, rest = int(rest[0]), rest[1:]
	if n > MaxClusterIDs || len(rest) < 8*n {
		return meta{}, fmt.Errorf("%w: cluster IDs cut short", errMeta)
	}
	for i := range n {
		m.clusterIDs = append(m.clusterIDs, ClusterID{binary.BigEndian.Uint32(rest[8*i:]), binary.BigEndian.Uint32(rest[8*i+4:])})
	}
	if err := m.parseExtensions(rest[8*n:]); err != nil {
		return meta{}, err
	}
	return m, nil
}

// parseExtensions parses what follows the cluster IDs. Errors wrap errMeta.
func (m *meta) parseExtensions(b []byte) error {
	for len(b) > 0 {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return fmt.Errorf("%w: extension cut short", errMeta)
		}
		kind, value := b[0], b[2:2+int(b[1])]
		b = b[2+len(value):]
		switch kind {
		case extensionVNI:
			if len(value) != vniLen {
				return fmt.Errorf("%w: VNI of %d bytes", errMeta, len(value))
			}
			m.vni = uint32(value[0])<<16 | uint32(value[1])<<8 | uint32(value[2])
		case extensionCertificate:
			m.certificate = append([]byte(nil), value...) // nil of an empty one, which stands for none
		default: // of a later build
		}
	}
	return nil
}

// checkCompatible returns why a node with metadata m cannot be a peer of this build, or nil.
func (m meta) checkCompatible() error {
	if m.protoMin > protocolMax || m.protoMax < protocolMin {
		return fmt.Errorf("%w: it supports protocol %d to %d, this node %d to %d: upgrade the older one",
			errMeta, m.protoMin, m.protoMax, protocolMin, protocolMax)
	}
	return nil
}
