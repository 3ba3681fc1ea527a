#include "textflag.h"
#include "constants_amd64.h"
#include "ghash_amd64.h"

// mulX is what a carry out of x^127 adds when an element of POLYVAL's field is multiplied by x (RFC 8452, appendix A).
DATA mulX<>+0x00(SB)/8, $0x0000000000000001
DATA mulX<>+0x08(SB)/8, $0xC200000000000000
GLOBL mulX<>(SB), RODATA|NOPTR, $16

// EXPAND sets w to the round key that follows it by two: each word is the sum of those up to it, plus the transformed word
// of the round key between them, which the shuffle s selects from X2 (FIPS 197, section 5.2). X3 is scratch.
#define EXPAND(w, s) \
	VPSHUFD s, X2, X2;  \
	VPSLLDQ $4, w, X3;  \
	VPXOR   X3, w, w;   \
	VPSLLDQ $8, w, X3;  \
	VPXOR   X3, w, w;   \
	VPXOR   X2, w, w

// ROUNDKEYS makes the round keys n and n+1 from X0 and X1, the two before them.
#define ROUNDKEYS(n, rcon) \
	VAESKEYGENASSIST rcon, X1, X2;     \
	EXPAND(X0, $0xFF);                 \
	VMOVDQU          X0, (16*n)(AX);   \
	VAESKEYGENASSIST $0, X0, X2;       \
	EXPAND(X1, $0xAA);                 \
	VMOVDQU          X1, (16*n+16)(AX)

#define ENCRYPTROUND(n) VAESENC (16*n)(AX), X0, X0

// func expand(k *key, secret *[32]byte)
//
// It derives the round keys, H, which is the encrypted zero block, and the powers of H.
TEXT ·expand(SB), NOSPLIT, $0-16
	MOVQ    k+0(FP), AX
	MOVQ    secret+8(FP), SI
	VMOVDQU 0(SI), X0
	VMOVDQU 16(SI), X1
	VMOVDQU X0, 0(AX)
	VMOVDQU X1, 16(AX)
	ROUNDKEYS(2, $0x01)
	ROUNDKEYS(4, $0x02)
	ROUNDKEYS(6, $0x04)
	ROUNDKEYS(8, $0x08)
	ROUNDKEYS(10, $0x10)
	ROUNDKEYS(12, $0x20)
	VAESKEYGENASSIST $0x40, X1, X2
	EXPAND(X0, $0xFF)
	VMOVDQU X0, (16*14)(AX)

	VMOVDQU 0(AX), X0
	ENCRYPTROUND(1)
	ENCRYPTROUND(2)
	ENCRYPTROUND(3)
	ENCRYPTROUND(4)
	ENCRYPTROUND(5)
	ENCRYPTROUND(6)
	ENCRYPTROUND(7)
	ENCRYPTROUND(8)
	ENCRYPTROUND(9)
	ENCRYPTROUND(10)
	ENCRYPTROUND(11)
	ENCRYPTROUND(12)
	ENCRYPTROUND(13)
	VAESENCLAST (16*14)(AX), X0, X0

	// X11 = H × x: each quadword is shifted, with a carry from the low one to the high one, and from that to mulX.
	VMOVDQU reduction<>(SB), Y14
	VPSHUFB reverse<>(SB), X0, X0
	VPSRLQ  $63, X0, X1
	VPSLLDQ $8, X1, X1
	VPADDQ  X0, X0, X11
	VPOR    X1, X11, X11
	VPSRAD  $31, X0, X1
	VPSHUFD $0xFF, X1, X1
	VPAND   mulX<>(SB), X1, X1
	VPXOR   X1, X11, X11

	// The table ends with H^1. DX is the place of the power in X11; the next one, before it, is that times H.
	LEAQ POWER(1), DX

powers:
	VMOVDQU X11, (DX)
	VPSHUFD $0x4E, X11, X12
	VPXOR   X11, X12, X12
	VMOVDQU X12, (MIDDLES-POWERS)(DX)
	CLEARSUM
	MULTIPLY1(POWER(1), MIDDLE(1))
	REDUCE
	VMOVDQA X15, X11
	SUBQ    $16, DX
	LEAQ    POWER(9), CX
	CMPQ    DX, CX
	JAE     powers
	VZEROUPPER
	RET
