#include "textflag.h"
#include "constants_amd64.h"
#include "ghash_amd64.h"
#include "ctr_amd64.h"
#include "partial_amd64.h"

// func seal(k *key, m *message, dst, src []byte, last bool)
//
// It encrypts 128 bytes at a time and hashes the 128 bytes before them, then the tail of up to 127 bytes.
// R9 is the first ciphertext that is not hashed yet.
TEXT ·seal(SB), NOSPLIT, $0-65
	MOVQ k+0(FP), AX
	MOVQ m+8(FP), BX
	MOVQ dst_base+16(FP), DI
	MOVQ src_base+40(FP), SI
	MOVQ src_len+48(FP), CX
	STATE
	KEYSTREAM
	CMPQ CX, $GROUP
	JB   tail
	MOVQ DI, R9
	XORGROUP

groups:
	KEYSTREAMHASH(R9)
	CMPQ CX, $GROUP
	JB   tail
	MOVQ DI, R9
	XORGROUP
	JMP  groups

tail:
	CMPB last+64(FP), $0
	JEQ  more
	FIRSTPOWER(1)

pair:
	CMPQ    CX, $32
	JB      block
	VPXOR   (SI), Y0, Y11
	VMOVDQU Y11, (DI)
	VPSHUFB Y6, Y11, Y11
	ADDHASH
	MULTIPLY(TAILPOWER, TAILMIDDLE)
	NEXTPAIR
	ADDQ    $32, DX
	ADDQ    $32, SI
	ADDQ    $32, DI
	SUBQ    $32, CX
	JMP     pair

block:
	CMPQ    CX, $16
	JB      partial
	VPXOR   (SI), X0, X11
	VMOVDQU X11, (DI)
	VPSHUFB X6, X11, X11
	ADDHASH
	MULTIPLY1(TAILPOWER, TAILMIDDLE)
	VEXTRACTI128 $1, Y0, X0
	ADDQ    $16, DX
	ADDQ    $16, SI
	ADDQ    $16, DI
	SUBQ    $16, CX

partial:
	TESTQ CX, CX
	JZ    finish
	LOADPARTIAL(load8, load4, loaded)
	VPXOR X11, X0, X0
	LEAQ  keep<>+16(SB), R8
	SUBQ  CX, R8
	VPAND (R8), X0, X11
	VPSHUFB X6, X11, X11
	ADDHASH
	MULTIPLY1(TAILPOWER, TAILMIDDLE)
	ADDQ  $16, DX
	STOREPARTIAL(store8, store4, stored)

finish:
	FINISH
	VZEROUPPER
	RET

more:
	VMOVDQU X15, HASH(BX)
	VZEROUPPER
	RET
