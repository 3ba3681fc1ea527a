package packet

// IPv4MinLen is the length of an IPv4 header without options, in bytes.
const IPv4MinLen = 20

// Offsets of the fields of an IPv4 header in bytes (RFC 791, section 3.1):
//
//	  0       1       2       3       4       5       6       7
//	+-------+-------+---------------+---------------+---------------+
//	|ver|IHL|  TOS  | total length  |identification |flags| offset  |
//	+-------+-------+---------------+---------------+---------------+
//	|  TTL  | proto |   checksum    |            source             |
//	+-------+-------+---------------+---------------+---------------+
//	|          destination          |   options, to 4 * IHL bytes   |
//	+-------------------------------+-------------------------------+
const (
	IPv4TOS         = 1
	IPv4Length      = 2
	IPv4ID          = 4
	IPv4Fragment    = 6 // flags and fragment offset
	IPv4TTL         = 8
	IPv4Protocol    = 9
	IPv4Checksum    = 10
	IPv4Source      = 12
	IPv4Destination = 16
)

// Bits of the 16-bit field at IPv4Fragment.
const (
	IPv4DontFragment  = 0x4000
	IPv4MoreFragments = 0x2000
	IPv4OffsetMask    = 0x1fff // in units of 8 bytes
)

// IPv4HeaderLen returns the length that the header of an IPv4 packet has by its IHL field: 0 to 60 bytes, of which less
// than IPv4MinLen is invalid. ip must hold at least one byte.
func IPv4HeaderLen(ip []byte) int { return int(ip[0]&0x0f) * 4 }
