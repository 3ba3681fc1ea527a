package vaesgcm

// key is what is derived from a secret key. It is constant after expand, so that any number of goroutines may use it. The assembly
// knows the offsets of its fields.
type key struct {
	// rounds are the round keys of AES-256.
	rounds [15][16]byte
	// powers are H^9 to H^1 in the form of POLYVAL: a tail of eight blocks and the block of lengths need nine.
	powers [9][16]byte
	_      [16]byte // middles[1] begins at a multiple of 32 as powers[1] does
	// middles are the sums of the two halves of each power, for Karatsuba's method; each is there twice.
	middles [9][16]byte
}

// message is the state of one message. The assembly knows the offsets of its fields, and loads each uint64 by itself: a longer load
// would have to wait until the stores of its parts have reached the cache.
type message struct {
	// counter is the next counter block, with the number of the block in the byte order of the CPU: the nonce in the first 12 bytes.
	counter [2]uint64
	// hash is GHASH of what has been processed, with reversed bytes.
	hash [16]byte
	// lengths is the last block of GHASH, with reversed bytes: the bits of ciphertext, then those of additional data.
	lengths [2]uint64
	// mask is the first counter block (J0 in NIST SP 800-38D), encrypted. The assembly sets it.
	mask [16]byte
	// tag is set by the last call of seal or open.
	tag [16]byte
}

// group is how many bytes the assembly encrypts at once.
const group = 8 * 16

// expand derives k from a secret key.
//
//go:noescape
func expand(k *key, secret *[KeySize]byte)

// hash adds data to m.hash. Zeros fill up the last block, so only the last call may have a part of a block.
//
//go:noescape
func hash(k *key, m *message, data []byte)

// seal encrypts src to the start of dst, which has at least the same length and is the same memory or does not overlap. If it is not
// the last call for a message, the length of src is a multiple of group. The last call sets m.tag.
//
//go:noescape
func seal(k *key, m *message, dst, src []byte, last bool)

// open is seal for the other direction.
//
//go:noescape
func open(k *key, m *message, dst, src []byte, last bool)
