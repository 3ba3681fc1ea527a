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
	CMPQ CX, $128
	JB   tail
	LOADPAIR(0(SI))
	VPXOR Y15, Y11, Y11
	PRODUCT((POWERS+16)(AX), (MIDDLES+16)(AX), Y11, Y8, Y9, Y10)
	LOADPAIR(32(SI))
	MULTIPLY((POWERS+48)(AX), (MIDDLES+48)(AX))
	LOADPAIR(64(SI))
	MULTIPLY((POWERS+80)(AX), (MIDDLES+80)(AX))
	LOADPAIR(96(SI))
	MULTIPLY((POWERS+112)(AX), (MIDDLES+112)(AX))
	REDUCE
	ADDQ $128, SI
	SUBQ $128, CX
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
	MULTIPLY1(POWER, MIDDLE)
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
	MULTIPLY1(POWER, MIDDLE)

reduce:
	REDUCE

done:
	VMOVDQU X15, HASH(BX)
	VZEROUPPER
	RET
