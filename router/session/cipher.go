package session

import (
	"crypto/cipher"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/cpu"

	"weft/internal/vaesgcm"
)

// KeyLen is the length in bytes of every key here: those of X25519, of both ciphers, and of the secret.
const KeyLen = 32

// ErrCipher is returned if there is no cipher that both nodes may use.
var ErrCipher = errors.New("session: no common cipher")

// Cipher is an AEAD with keys of 32 bytes, nonces of 12 and tags of 16. The zero Cipher is none.
type Cipher uint8

// Ciphers. The numbers are sent in the handshake.
const (
	AES256GCM        Cipher = 1 // NIST SP 800-38D
	ChaCha20Poly1305 Cipher = 2 // RFC 8439
)

// String returns the name of the cipher in flags and JSON.
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

// newAEAD returns the AEAD of the cipher with a key. With standardAES, AES is that of the standard library on every CPU.
func (c Cipher) newAEAD(key [KeyLen]byte, standardAES bool) (cipher.AEAD, error) {
	switch c {
	case AES256GCM:
		if standardAES {
			return vaesgcm.NewStandard(key[:])
		}
		return vaesgcm.New(key[:])
	case ChaCha20Poly1305:
		return chacha20poly1305.New(key[:])
	default:
		return nil, fmt.Errorf("%w: number %d", ErrCipher, c)
	}
}

// Offer is the set of ciphers that a node may use, and whether AES is fast on it.
type Offer uint8

// Bits of an Offer.
const (
	offerAES     Offer = 1 << 0
	offerChaCha  Offer = 1 << 1
	offerFastAES Offer = 1 << 2 // the CPU has instructions for it
)

// offer returns the bit of c in an Offer, 0 for no cipher.
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

// NewOffer returns the offer of a node that may use the cipher only, or any cipher if only is 0. fastAES reports
// whether its CPU has instructions for AES.
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

// Choose returns the cipher for two nodes, whichever order they are given in: AES-256-GCM if both CPUs have
// instructions for it, else ChaCha20-Poly1305, which is faster without them and has no secret-dependent table look-ups.
// If the nodes have only one cipher in common, it is that one. The error wraps ErrCipher.
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
