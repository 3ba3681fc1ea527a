package vaesgcm

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
)

// Limits of GCM with nonces of 12 bytes (NIST SP 800-38D, section 5.2.1.1).
const (
	nonceSize = 12
	tagSize   = 16
	maxLength = (1<<32 - 2) * 16 // bytes of plaintext
)

// chunk is how many bytes one call of the assembly processes. The scheduler cannot interrupt it, so it is short: about 10 µs.
const chunk = 512 * group

// errOpen has the text of the standard library's error.
var errOpen = errors.New("cipher: message authentication failed")

// gcm is AES-256-GCM in assembly.
type gcm struct{ key key }

// newAssembly returns the AEAD of a secret key. The CPU must be supported.
func newAssembly(secret *[KeySize]byte) cipher.AEAD {
	g := &gcm{}
	expand(&g.key, secret)
	return g
}

// NonceSize implements cipher.AEAD.
func (g *gcm) NonceSize() int { return nonceSize }

// Overhead implements cipher.AEAD.
func (g *gcm) Overhead() int { return tagSize }

// Seal implements cipher.AEAD.
func (g *gcm) Seal(dst, nonce, plaintext, additionalData []byte) []byte {
	if len(nonce) != nonceSize {
		panic("crypto/cipher: incorrect nonce length given to GCM")
	}
	if uint64(len(plaintext)) > maxLength {
		panic("crypto/cipher: message too large for GCM")
	}
	ret, out := extend(dst, len(plaintext)+tagSize)
	checkOverlap(out, plaintext, additionalData)

	var m message
	g.start(&m, nonce, additionalData, len(plaintext))
	body := out
	for len(plaintext) > chunk {
		seal(&g.key, &m, body, plaintext[:chunk], false)
		body, plaintext = body[chunk:], plaintext[chunk:]
		m.counter[1] += chunk / 16 << 32
	}
	seal(&g.key, &m, body, plaintext, true)
	copy(out[len(out)-tagSize:], m.tag[:])
	return ret
}

// Open implements cipher.AEAD. If it fails, the destination is zeroed, as it is by the standard library.
func (g *gcm) Open(dst, nonce, ciphertext, additionalData []byte) ([]byte, error) {
	if len(nonce) != nonceSize {
		panic("crypto/cipher: incorrect nonce length given to GCM")
	}
	if len(ciphertext) < tagSize || uint64(len(ciphertext)) > maxLength+tagSize {
		return nil, errOpen
	}
	ret, out := extend(dst, len(ciphertext)-tagSize)
	checkOverlap(out, ciphertext, additionalData)

	tag, ciphertext := ciphertext[len(out):], ciphertext[:len(out)]
	var m message
	g.start(&m, nonce, additionalData, len(ciphertext))
	body := out
	for len(ciphertext) > chunk {
		open(&g.key, &m, body, ciphertext[:chunk], false)
		body, ciphertext = body[chunk:], ciphertext[chunk:]
		m.counter[1] += chunk / 16 << 32
	}
	open(&g.key, &m, body, ciphertext, true)
	if subtle.ConstantTimeCompare(m.tag[:], tag) != 1 {
		clear(out)
		return nil, errOpen
	}
	return ret, nil
}

// start sets the state of a message up to its first byte.
func (g *gcm) start(m *message, nonce, additionalData []byte, length int) {
	m.counter[0] = binary.LittleEndian.Uint64(nonce)
	m.counter[1] = uint64(binary.LittleEndian.Uint32(nonce[8:])) | 2<<32
	m.lengths = [2]uint64{uint64(length) * 8, uint64(len(additionalData)) * 8}
	for len(additionalData) > chunk {
		hash(&g.key, m, additionalData[:chunk])
		additionalData = additionalData[chunk:]
	}
	if len(additionalData) > 0 {
		hash(&g.key, m, additionalData)
	}
}
