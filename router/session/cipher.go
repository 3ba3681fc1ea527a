package session

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/cpu"
)

// KeyLen is the length in bytes of every key here: those of X25519, of both ciphers, and of the secret.
const KeyLen = 32

// ErrCipher says that two nodes have no cipher that both of them would use.
var ErrCipher = errors.New("session: no common cipher")

// Cipher is an AEAD with keys of 32 bytes, nonces of 12 and tags of 16. The zero Cipher is none.
type Cipher uint8

// Ciphers. The numbers stand in the handshake.
const (
	AES256GCM        Cipher = 1 // NIST SP 800-38D
	ChaCha20Poly1305 Cipher = 2 // RFC 8439
)

// String returns the cipher as flags and JSON have it.
func (c Cipher) String() string {
	switch c {
	case AES256GCM:
		return "aes-256-gcm"
	case ChaCha20Poly1305:
		return "chacha20-poly1305"
	default:
		return "none"
	}
}

// newAEAD returns the cipher with a key.
func (c Cipher) newAEAD(key [KeyLen]byte) (cipher.AEAD, error) {
	switch c {
	case AES256GCM:
		block, err := aes.NewCipher(key[:])
		if err != nil {
			return nil, fmt.Errorf("session: %w", err)
		}
		return cipher.NewGCM(block)
	case ChaCha20Poly1305:
		return chacha20poly1305.New(key[:])
	default:
		return nil, fmt.Errorf("%w: number %d", ErrCipher, c)
	}
}

// Offer is the set of ciphers that a node would use, and whether AES costs it little.
type Offer uint8

// Bits of an Offer.
const (
	offerAES     Offer = 1 << 0
	offerChaCha  Offer = 1 << 1
	offerFastAES Offer = 1 << 2 // the CPU has instructions for it
)

// offer returns the bit of an Offer that stands for c; 0 for none.
func (c Cipher) offer() Offer {
	switch c {
	case AES256GCM:
		return offerAES
	case ChaCha20Poly1305:
		return offerChaCha
	default:
		return 0
	}
}

// NewOffer returns the offer of a node that uses only one cipher, or any where that is 0. fastAES says whether its CPU
// has instructions for AES.
func NewOffer(only Cipher, fastAES bool) Offer {
	o := only.offer()
	if o == 0 {
		o = offerAES | offerChaCha
	}
	if fastAES {
		o |= offerFastAES
	}
	return o
}

// Choose returns the cipher for two nodes, in whichever order they are named: AES-256-GCM where both CPUs have
// instructions for it, ChaCha20-Poly1305 otherwise, which without them is faster and has no secret-dependent table
// look-ups; and what is left where one of the nodes uses only one. The error wraps ErrCipher.
func Choose(a, b Offer) (Cipher, error) {
	switch common := a & b; {
	case common&offerAES != 0 && (common&offerFastAES != 0 || common&offerChaCha == 0):
		return AES256GCM, nil
	case common&offerChaCha != 0:
		return ChaCha20Poly1305, nil
	}
	return 0, ErrCipher
}

// FastAES reports whether this CPU has instructions for AES-GCM.
func FastAES() bool {
	return cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL || cpu.S390X.HasAESGCM
}
