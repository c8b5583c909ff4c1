/* What loops for x86 processors with AVX2 and FMA have in common. The wheel is built without flags of a processor: which
 * functions use these instructions is said here, and whether the processor has them is asked at run time. */
#ifndef VIZCOMP_X86_H
#define VIZCOMP_X86_H

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#include <immintrin.h>

#define VZ_X86 1
#define FAST __attribute__((target("avx2,fma")))
#define INLINE static inline __attribute__((target("avx2,fma"), always_inline))

/* Compiled once and alone, so that its registers are its own. */
#ifdef __clang__
#define APART FAST __attribute__((noinline))
#else
#define APART FAST __attribute__((noinline, noclone))
#endif

enum { LANES = 8 }; /* float32 numbers of a vector */

#else

#define VZ_X86 0

#endif

#endif
