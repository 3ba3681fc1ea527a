#include "textflag.h"
#include "constants_amd64.h"
#include "ghash_amd64.h"
#include "ctr_amd64.h"
#include "partial_amd64.h"

// func hash(k *key, m *message, data []byte)
//
// It hashes 128 bytes at a time, then the tail, with zeros up to the end of its last block.
TEXT ·hash(SB), NOSPLIT, $0-40
	MOVQ    k+0(FP), AX
	MOVQ    m+8(FP), BX
	MOVQ    data_base+16(FP), SI
	MOVQ    data_len+24(FP), CX
	VMOVDQU reverse<>(SB), Y6
	VMOVDQU reduction<>(SB), Y14
	VMOVDQU HASH(BX), X15

groups:
	CMPQ CX, $GROUP
	JB   tail
	LOADPAIR(0(SI))
	VPXOR Y15, Y11, Y11
	PRODUCT(POWER(8), MIDDLE(8), Y11, Y8, Y9, Y10)
	LOADPAIR(32(SI))
	MULTIPLY(POWER(6), MIDDLE(6))
	LOADPAIR(64(SI))
	MULTIPLY(POWER(4), MIDDLE(4))
	LOADPAIR(96(SI))
	MULTIPLY(POWER(2), MIDDLE(2))
	REDUCE
	ADDQ $GROUP, SI
	SUBQ $GROUP, CX
	JMP  groups

tail:
	TESTQ CX, CX
	JZ    done
	FIRSTPOWER(0)

block:
	CMPQ CX, $16
	JB   partial
	VMOVDQU (SI), X11
	VPSHUFB X6, X11, X11
	ADDHASH
	MULTIPLY1(TAILPOWER, TAILMIDDLE)
	ADDQ $16, DX
	ADDQ $16, SI
	SUBQ $16, CX
	JMP  block

partial:
	TESTQ CX, CX
	JZ    reduce
	LOADPARTIAL(load8, load4, loaded)
	VPSHUFB X6, X11, X11
	ADDHASH
	MULTIPLY1(TAILPOWER, TAILMIDDLE)

reduce:
	REDUCE

done:
	VMOVDQU X15, HASH(BX)
	VZEROUPPER
	RET
