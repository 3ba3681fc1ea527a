// GHASH over blocks in AVX2 registers. The files that include this one have the same registers in the same roles:
//
//	AX  *key                   BX  *message
//	SI  source                 DI  destination
//	CX  bytes that are left    DX  power of H for the next block of the tail; R8 to R13: scratch
//	Y0 to Y3  four pairs of counter blocks, then of key stream
//	Y4  round key              Y5  the next pair of counters
//	Y6  mask that reverses the bytes of a block
//	Y7  mask that makes a counter big-endian
//	Y8, Y9, Y10  low, middle and high part of the sum of products
//	Y11  block to multiply     Y12, Y13  scratch
//	Y14  the reduction constant
//	X15  the hash so far; the upper half of Y15 is 0
//
// The hash and the powers are in the form of POLYVAL (RFC 8452, appendix A): GHASH with the bytes of each block reversed
// and H multiplied by x. There a product needs no shift by one bit.

// Offsets in key and message (key_amd64.go).
#define POWERS 240
#define MIDDLES 400
#define COUNTER 0
#define HASH 16
#define LENGTHS 32
#define MASK 48
#define TAG 64

// POWER and MIDDLE are the operands with H^n and the sum of its halves: two powers, H^n and H^(n-1), for a pair of blocks.
#define POWER(n) (POWERS+16*(9-n))(AX)
#define MIDDLE(n) (MIDDLES+16*(9-n))(AX)

// TAILPOWER and TAILMIDDLE are the operands with the power at DX.
#define TAILPOWER (DX)
#define TAILMIDDLE (MIDDLES-POWERS)(DX)

// PRODUCT sets l, m and h to the three parts of the products of d with the powers of H at p. It is Karatsuba's method (Gueron and
// Kounavis, "Intel Carry-Less Multiplication Instruction and its Usage for Computing the GCM Mode"): low × low, high × high, and
// (low + high) × (low + high), of which the second factor is precomputed at q.
#define PRODUCT(p, q, d, l, m, h) \
	VPSHUFD    $0x4E, d, m;    \
	VPXOR      d, m, m;        \
	VPCLMULQDQ $0x00, p, d, l; \
	VPCLMULQDQ $0x11, p, d, h; \
	VPCLMULQDQ $0x00, q, m, m

// MULTIPLY adds the product of the two blocks in Y11 with two powers to the sum.
#define MULTIPLY(p, q) \
	VPSHUFD    $0x4E, Y11, Y12;    \
	VPXOR      Y11, Y12, Y12;      \
	VPCLMULQDQ $0x00, p, Y11, Y13; \
	VPXOR      Y13, Y8, Y8;        \
	VPCLMULQDQ $0x11, p, Y11, Y13; \
	VPXOR      Y13, Y10, Y10;      \
	VPCLMULQDQ $0x00, q, Y12, Y12; \
	VPXOR      Y12, Y9, Y9

// MULTIPLY1 adds the product of the block in X11 with one power to the sum. The products have zeros in their upper half.
#define MULTIPLY1(p, q) \
	VPSHUFD    $0x4E, X11, X12;    \
	VPXOR      X11, X12, X12;      \
	VPCLMULQDQ $0x00, p, X11, X13; \
	VPXOR      Y13, Y8, Y8;        \
	VPCLMULQDQ $0x11, p, X11, X13; \
	VPXOR      Y13, Y10, Y10;      \
	VPCLMULQDQ $0x00, q, X12, X12; \
	VPXOR      Y12, Y9, Y9

// CLEARSUM sets the sum to 0.
#define CLEARSUM \
	VPXOR Y8, Y8, Y8;  \
	VPXOR Y9, Y9, Y9;  \
	VPXOR Y10, Y10, Y10

// The reduction of the sum modulo x^128 + x^127 + x^126 + x^121 + 1, in three steps. Each of the first two adds the multiple
// of the polynomial that clears the lowest 64 bits (Montgomery's method), and the third adds the halves of the register.
#define REDUCE1 \
	VPXOR      Y8, Y9, Y9;          \
	VPXOR      Y10, Y9, Y9;         \
	VPCLMULQDQ $0x00, Y14, Y8, Y12; \
	VPSHUFD    $0x4E, Y8, Y8;       \
	VPXOR      Y8, Y9, Y9;          \
	VPXOR      Y12, Y9, Y9

#define REDUCE2 \
	VPCLMULQDQ $0x00, Y14, Y9, Y12; \
	VPSHUFD    $0x4E, Y9, Y9;       \
	VPXOR      Y9, Y10, Y10;        \
	VPXOR      Y12, Y10, Y10

#define REDUCE3 \
	VEXTRACTI128 $1, Y10, X12;  \
	VPXOR        X12, X10, X15

#define REDUCE REDUCE1; REDUCE2; REDUCE3

// ADDHASH adds the hash so far to the first block after a reduction, and sets it to 0, so that later blocks may add it too.
#define ADDHASH \
	VPXOR Y15, Y11, Y11; \
	VPXOR Y15, Y15, Y15

// FIRSTPOWER sets DX to the power of H for the first block of a tail of CX bytes, and the sum to 0. after is the number of blocks
// that follow the tail, 0 or 1.
#define FIRSTPOWER(after) \
	LEAQ 15(CX), DX;                            \
	ANDQ $~15, DX;                              \
	NEGQ DX;                                    \
	LEAQ (POWERS+16*9-16*after)(AX)(DX*1), DX; \
	CLEARSUM

// FINISH hashes the block of lengths, and writes the tag.
#define FINISH \
	VMOVQ     LENGTHS(BX), X11;              \
	VPINSRQ   $1, (LENGTHS+8)(BX), X11, X11; \
	ADDHASH;                                 \
	MULTIPLY1(POWER(1), MIDDLE(1));          \
	REDUCE;                                  \
	VPSHUFB   X6, X15, X11;                 \
	VPXOR     MASK(BX), X11, X11;            \
	VMOVDQU   X11, TAG(BX)
