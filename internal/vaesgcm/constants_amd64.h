// Constants of the assembly, each in the files that include this one.

// reverse is the VPSHUFB mask that reverses the bytes of each block.
DATA reverse<>+0x00(SB)/8, $0x08090A0B0C0D0E0F
DATA reverse<>+0x08(SB)/8, $0x0001020304050607
DATA reverse<>+0x10(SB)/8, $0x08090A0B0C0D0E0F
DATA reverse<>+0x18(SB)/8, $0x0001020304050607
GLOBL reverse<>(SB), RODATA|NOPTR, $32

// bigEndian is the VPSHUFB mask that reverses the last four bytes of each block.
DATA bigEndian<>+0x00(SB)/8, $0x0706050403020100
DATA bigEndian<>+0x08(SB)/8, $0x0C0D0E0F0B0A0908
DATA bigEndian<>+0x10(SB)/8, $0x0706050403020100
DATA bigEndian<>+0x18(SB)/8, $0x0C0D0E0F0B0A0908
GLOBL bigEndian<>(SB), RODATA|NOPTR, $32

// reduction is x^63 + x^62 + x^57 in each quadword: the upper part of the polynomial of POLYVAL.
DATA reduction<>+0x00(SB)/8, $0xC200000000000000
DATA reduction<>+0x08(SB)/8, $0xC200000000000000
DATA reduction<>+0x10(SB)/8, $0xC200000000000000
DATA reduction<>+0x18(SB)/8, $0xC200000000000000
GLOBL reduction<>(SB), RODATA|NOPTR, $32

// second adds 1 to the counter of the second block of a pair.
DATA second<>+0x00(SB)/8, $0
DATA second<>+0x08(SB)/8, $0
DATA second<>+0x10(SB)/8, $0
DATA second<>+0x18(SB)/8, $0x0000000100000000
GLOBL second<>(SB), RODATA|NOPTR, $32

// pairs adds 2, 4, 6 and 8 to the counters of a pair.
DATA pairs<>+0x00(SB)/8, $0
DATA pairs<>+0x08(SB)/8, $0x0000000200000000
DATA pairs<>+0x10(SB)/8, $0
DATA pairs<>+0x18(SB)/8, $0x0000000200000000
DATA pairs<>+0x20(SB)/8, $0
DATA pairs<>+0x28(SB)/8, $0x0000000400000000
DATA pairs<>+0x30(SB)/8, $0
DATA pairs<>+0x38(SB)/8, $0x0000000400000000
DATA pairs<>+0x40(SB)/8, $0
DATA pairs<>+0x48(SB)/8, $0x0000000600000000
DATA pairs<>+0x50(SB)/8, $0
DATA pairs<>+0x58(SB)/8, $0x0000000600000000
DATA pairs<>+0x60(SB)/8, $0
DATA pairs<>+0x68(SB)/8, $0x0000000800000000
DATA pairs<>+0x70(SB)/8, $0
DATA pairs<>+0x78(SB)/8, $0x0000000800000000
GLOBL pairs<>(SB), RODATA|NOPTR, $128

// keep has 16 bytes of ones before 16 of zeros: the 16 bytes from 16-n on keep n bytes of a block.
DATA keep<>+0x00(SB)/8, $0xFFFFFFFFFFFFFFFF
DATA keep<>+0x08(SB)/8, $0xFFFFFFFFFFFFFFFF
DATA keep<>+0x10(SB)/8, $0
DATA keep<>+0x18(SB)/8, $0
GLOBL keep<>(SB), RODATA|NOPTR, $32
