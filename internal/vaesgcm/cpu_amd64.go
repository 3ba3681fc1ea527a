package vaesgcm

import "golang.org/x/sys/cpu"

// Bits of ECX of CPUID leaf 7 (AMD64 Architecture Programmer's Manual, volume 3, appendix E). Package cpu reports them only for CPUs
// with AVX-512.
const (
	bitVAES       = 1 << 9
	bitVPCLMULQDQ = 1 << 10
)

// features returns ECX of CPUID leaf 7. Every CPU with AVX2 has that leaf.
func features() uint32

// supported reports whether the CPU has all instructions that the assembly uses. HasAVX2 includes that the OS saves YMM registers.
var supported = cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ && cpu.X86.HasAVX2 &&
	features()&(bitVAES|bitVPCLMULQDQ) == bitVAES|bitVPCLMULQDQ
