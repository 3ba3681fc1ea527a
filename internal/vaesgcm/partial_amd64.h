// The last 1 to 15 bytes of a message. No byte beside them is read or written: it may be in a page that is not mapped.

// LOADPARTIAL sets X11 to the CX bytes at SI, 1 to 15, and the rest of it to 0. It overwrites R8 and R10 to R13. Two loads, or
// three, overlap if the bytes are fewer than both hold. The last three arguments are labels.
#define LOADPARTIAL(below8, below4, done) \
	MOVQ    CX, R11;           \
	CMPQ    CX, $8;            \
	JB      below8;            \
	MOVQ    (SI), R8;          \
	MOVQ    -8(SI)(CX*1), R10; \
	XORQ    $15, CX;           \
	SHLQ    $3, CX;            \
	SHRQ    CX, R10;           \
	SHRQ    $8, R10;           \
	VMOVQ   R8, X11;           \
	VPINSRQ $1, R10, X11, X11; \
	JMP     done;              \
below8:                        \
	CMPQ    CX, $4;            \
	JB      below4;            \
	MOVL    (SI), R8;          \
	MOVL    -4(SI)(CX*1), R10; \
	SUBQ    $4, CX;            \
	SHLQ    $3, CX;            \
	SHLQ    CX, R10;           \
	ORQ     R10, R8;           \
	VMOVQ   R8, X11;           \
	JMP     done;              \
below4:                        \
	MOVBQZX (SI), R8;          \
	MOVBQZX -1(SI)(CX*1), R10; \
	SHRQ    $1, CX;            \
	MOVBQZX (SI)(CX*1), R12;   \
	SHLQ    $3, CX;            \
	SHLQ    CX, R12;           \
	LEAQ    -1(R11), CX;       \
	SHLQ    $3, CX;            \
	SHLQ    CX, R10;           \
	ORQ     R10, R8;           \
	ORQ     R12, R8;           \
	VMOVQ   R8, X11;           \
done:                          \
	MOVQ    R11, CX

// STOREPARTIAL writes the low CX bytes of X0, 1 to 15, to DI. It overwrites R8 and R10 to R13.
#define STOREPARTIAL(below8, below4, done) \
	MOVQ    CX, R11;          \
	VMOVQ   X0, R8;           \
	CMPQ    CX, $8;           \
	JB      below8;           \
	VPEXTRQ $1, X0, R10;      \
	MOVQ    R8, (DI);         \
	SUBQ    $8, CX;           \
	SHLQ    $3, CX;           \
	SHRQ    CX, R10, R8;      \
	MOVQ    R8, -8(DI)(R11*1); \
	JMP     done;             \
below8:                       \
	CMPQ    CX, $4;           \
	JB      below4;           \
	MOVL    R8, (DI);         \
	SUBQ    $4, CX;           \
	SHLQ    $3, CX;           \
	SHRQ    CX, R8;           \
	MOVL    R8, -4(DI)(R11*1); \
	JMP     done;             \
below4:                       \
	MOVB    R8, (DI);         \
	MOVQ    R8, R10;          \
	SHRQ    $1, CX;           \
	LEAQ    (DI)(CX*1), R12;  \
	SHLQ    $3, CX;           \
	SHRQ    CX, R8;           \
	MOVB    R8, (R12);        \
	LEAQ    -1(R11), CX;      \
	SHLQ    $3, CX;           \
	SHRQ    CX, R10;          \
	MOVB    R10, -1(DI)(R11*1); \
done:                         \
	MOVQ    R11, CX
