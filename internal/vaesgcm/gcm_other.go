//go:build !amd64

package vaesgcm

import "crypto/cipher"

// supported is false: the assembly is for amd64 only.
const supported = false

// newAssembly is not called.
func newAssembly(*[KeySize]byte) cipher.AEAD { return nil }
