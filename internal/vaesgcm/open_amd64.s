#include "textflag.h"
#include "constants_amd64.h"
#include "ghash_amd64.h"
#include "ctr_amd64.h"
#include "partial_amd64.h"

// func open(k *key, m *message, dst, src []byte, last bool)
//
// It hashes and decrypts 128 bytes at a time, then the tail of up to 127 bytes.
TEXT ·open(SB), NOSPLIT, $0-65
	MOVQ k+0(FP), AX
	MOVQ m+8(FP), BX
	MOVQ dst_base+16(FP), DI
	MOVQ src_base+40(FP), SI
	MOVQ src_len+48(FP), CX
	STATE

groups:
	CMPQ CX, $GROUP
	JB   tail
	KEYSTREAMHASH(SI)
	XORGROUP
	JMP  groups

tail:
	CMPB last+64(FP), $0
	JEQ  more
	KEYSTREAM
	FIRSTPOWER(1)

pair:
	CMPQ    CX, $32
	JB      block
	VMOVDQU (SI), Y11
	VPXOR   Y11, Y0, Y0
	VMOVDQU Y0, (DI)
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
	VMOVDQU (SI), X11
	VPXOR   X11, X0, X12
	VMOVDQU X12, (DI)
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
