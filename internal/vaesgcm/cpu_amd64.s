#include "textflag.h"

// func features() uint32
//
// It returns ECX of CPUID leaf 7, subleaf 0.
TEXT ·features(SB), NOSPLIT, $0-4
	MOVL $7, AX
	MOVL $0, CX
	CPUID
	MOVL CX, ret+0(FP)
	RET
