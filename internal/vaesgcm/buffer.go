package vaesgcm

import "unsafe"

// extend appends n bytes to b, in place if its capacity suffices, and returns the whole and the new part.
func extend(b []byte, n int) (whole, added []byte) {
	if total := len(b) + n; cap(b) >= total {
		whole = b[:total]
	} else {
		whole = make([]byte, total)
		copy(whole, b)
	}
	return whole, whole[len(b):]
}

// checkOverlap panics as the standard library does if the output shares memory with the input other than by beginning at the same
// byte, or with the additional data at all.
func checkOverlap(out, in, additional []byte) {
	if overlap(out, in) && &out[0] != &in[0] {
		panic("crypto/cipher: invalid buffer overlap of output and input")
	}
	if overlap(out, additional) {
		panic("crypto/cipher: invalid buffer overlap of output and additional data")
	}
}

// overlap reports whether a and b share memory.
func overlap(a, b []byte) bool {
	return len(a) > 0 && len(b) > 0 &&
		uintptr(unsafe.Pointer(&a[0])) <= uintptr(unsafe.Pointer(&b[len(b)-1])) &&
		uintptr(unsafe.Pointer(&b[0])) <= uintptr(unsafe.Pointer(&a[len(a)-1]))
}
