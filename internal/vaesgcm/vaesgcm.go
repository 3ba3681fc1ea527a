// Package vaesgcm is AES-256-GCM (NIST SP 800-38D) for CPUs with 256-bit AES and carry-less multiplication: VAES and
// VPCLMULQDQ with AVX2. Two blocks share a register, so it is about twice as fast as the standard library, which uses 128-bit
// instructions.
//
// Messages, errors and panics are those of cipher.NewGCM. On every other CPU, and in FIPS 140-3 mode, New returns the AEAD of the
// standard library.
package vaesgcm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
)

// KeySize is the length of a key in bytes.
const KeySize = 32

// New returns AES-256-GCM with a key of KeySize bytes, nonces of 12 bytes and tags of 16. Goroutines may share it. A key of 16 or
// 24 bytes makes an AEAD of the standard library, and other lengths an error, as with aes.NewCipher.
func New(key []byte) (cipher.AEAD, error) {
	if len(key) == KeySize && Supported() {
		return newAssembly((*[KeySize]byte)(key)), nil
	}
	return NewStandard(key)
}

// Supported reports whether this CPU and operating system have the instructions and FIPS 140-3 mode is off, so that New uses them.
func Supported() bool { return supported && !fips140.Enabled() }

// NewStandard returns the AEAD of the standard library, on every CPU.
func NewStandard(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
