/* ptx_rt.h -- what the C that ptx2c.py writes is made of: PTX instructions that are no plain C expression.
 *
 * Registers are unsigned integers of their width, floats among them as bit patterns. Source: NVIDIA, Parallel Thread
 * Execution ISA 9.0. What the ISA leaves undefined ends the program. */
#ifndef QD_TESTS_SHIM_PTX_RT_H
#define QD_TESTS_SHIM_PTX_RT_H

#include "tests/shim/cuda_shim.h"

#include <fenv.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Registers start as this, so that one read before it is written shows. */
#define PTX_POISON_PRED 1
#define PTX_POISON_16   ((uint16_t)0xa5a5u)
#define PTX_POISON_32   0xa5a5a5a5u
#define PTX_POISON_64   0xa5a5a5a5a5a5a5a5u

static inline void ptx_die(const char *what, uint64_t where)
{
    fprintf(stderr, "ptx: %s (0x%llx), thread %u of block %u\n", what, (unsigned long long)where, threadIdx.x,
            blockIdx.x);
    abort();
}

/* ---- float32 ---- */

static inline float ptx_f32(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Results that are NaN are the canonical one. */
static inline uint32_t ptx_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return x == x ? bits : 0x7fffffffu;
}

/* The operand that is no NaN; -0 < +0. */
static inline uint32_t ptx_min_f32(uint32_t a, uint32_t b)
{
    const float x = ptx_f32(a), y = ptx_f32(b);
    if (!(x == x)) return ptx_bits(y);
    if (!(y == y)) return a;
    if (x == y) return a | b;
    return x < y ? a : b;
}

static inline uint32_t ptx_max_f32(uint32_t a, uint32_t b)
{
    const float x = ptx_f32(a), y = ptx_f32(b);
    if (!(x == x)) return ptx_bits(y);
    if (!(y == y)) return a;
    if (x == y) return a & b;
    return x > y ? a : b;
}

static inline float ptx_rounded_sum(float x, float y, int mode)
{
    const int before = fegetround();
    volatile float a = x, b = y, sum;
    (void)fesetround(mode);
    sum = a + b;
    (void)fesetround(before);
    return sum;
}

static inline uint32_t ptx_add_towards(uint32_t a, uint32_t b, int mode)
{
    return ptx_bits(ptx_rounded_sum(ptx_f32(a), ptx_f32(b), mode));
}

static inline uint32_t ptx_fma_towards(uint32_t a, uint32_t b, uint32_t c, int mode)
{
    const int before = fegetround();
    volatile float x = ptx_f32(a), y = ptx_f32(b), z = ptx_f32(c), r;
    (void)fesetround(mode);
    r = fmaf(x, y, z);
    (void)fesetround(before);
    return ptx_bits(r);
}

/* To [0, 1]; NaN becomes 0. */
static inline uint32_t ptx_saturate(uint32_t a)
{
    const float x = ptx_f32(a);
    return ptx_bits(x > 1.0f ? 1.0f : x > 0.0f ? x : 0.0f);
}

/* Subnormal operands and results are flushed. */
static inline uint32_t ptx_ex2(uint32_t a)
{
    const float x = (a & 0x7f800000u) == 0 ? 0.0f : ptx_f32(a), y = exp2f(x);
    return ptx_bits(y < 0x1p-126f ? 0.0f : y);
}

/* Towards zero, saturating; NaN becomes 0. */
static inline uint32_t ptx_to_s32(uint32_t a)
{
    const float x = ptx_f32(a);
    if (!(x == x)) return 0;
    if (x >= 0x1p31f) return 0x7fffffffu;
    return x < -0x1p31f ? 0x80000000u : (uint32_t)(int32_t)x;
}

/* Code of x in a small float without infinities: nearest, ties to even, what is above `top` (a magnitude code) becomes
 * it, NaN `nan`; -0 keeps its sign. By the format's definition, for .satfinite of cvt. */
static inline uint32_t ptx_small_float(uint32_t bits, int mantissa, int bias, uint32_t top, uint32_t nan)
{
    const int least = 1 - bias; /* exponent of the smallest normal value */
    const double x = fabs((double)ptx_f32(bits));
    const uint32_t sign = bits >> 31 << (top < 8 ? 3 : 7);
    if (!(x == x)) return nan;
    if (x == 0) return sign;
    if (x > 65536) return sign | top;
    const int e = ilogb(x) > least ? ilogb(x) : least;
    const double steps = nearbyint(ldexp(x, mantissa - e)); /* 2^mantissa to 2^(mantissa + 1) for normal values */
    const uint32_t code = (uint32_t)(e - least) * (1u << mantissa) + (uint32_t)steps;
    return sign | (code < top ? code : top);
}

static inline uint32_t ptx_e4m3(uint32_t bits)
{
    return ptx_small_float(bits, 3, 7, 0x7e, 0x7f);
}

static inline uint32_t ptx_e2m1(uint32_t bits)
{
    return ptx_small_float(bits, 1, 1, 7, 7);
}

/* ---- float64 ---- */

static inline double ptx_f64(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint64_t ptx_bits_f64(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* ---- integers ---- */

/* Shifts clamp at the width of the register. */
static inline uint64_t ptx_shl(uint64_t a, uint32_t n, unsigned width)
{
    return n >= width ? 0 : a << n;
}

static inline uint64_t ptx_shr(uint64_t a, uint32_t n, unsigned width)
{
    return n >= width ? 0 : a >> n;
}

/* Of a signed register; what comes in is its sign. */
static inline uint64_t ptx_sar(uint64_t a, uint32_t n, unsigned width)
{
    const int64_t x = width == 32 ? (int64_t)(int32_t)(uint32_t)a : (int64_t)a;
    return (uint64_t)(x >> (n < width ? n : width - 1));
}

static inline uint64_t ptx_div(uint64_t a, uint64_t b)
{
    if (b == 0) ptx_die("division by zero", a);
    return a / b;
}

static inline uint64_t ptx_rem(uint64_t a, uint64_t b)
{
    if (b == 0) ptx_die("remainder by zero", a);
    return a % b;
}

/* Four bytes picked from b:a by the nibbles of c; bit 3 of a nibble spreads the byte's sign. */
static inline uint32_t ptx_prmt(uint32_t a, uint32_t b, uint32_t c)
{
    const uint64_t from = (uint64_t)b << 32 | a;
    uint32_t d = 0;
    for (unsigned i = 0; i < 4; i++) {
        const uint32_t pick = c >> 4 * i & 15u;
        const uint32_t byte = (uint32_t)(from >> 8 * (pick & 7u)) & 0xffu;
        d |= ((pick & 8u) != 0 ? (byte & 0x80u) != 0 ? 0xffu : 0u : byte) << 8 * i;
    }
    return d;
}

/* ---- memory ---- */

static inline void ptx_aligned(uint64_t at, uint64_t to)
{
    if (at % to != 0) ptx_die("misaligned address", at);
}

static inline uint64_t ptx_load(const void *at, unsigned bytes)
{
    uint64_t v = 0;
    memcpy(&v, at, bytes); /* little endian, as the device */
    return v;
}

static inline void ptx_store(void *at, uint64_t v, unsigned bytes)
{
    memcpy(at, &v, bytes);
}

static inline void *ptx_global(uint64_t at, unsigned bytes)
{
    ptx_aligned(at, bytes);
    return (void *)(uintptr_t)at;
}

static inline void *ptx_shared(unsigned char *memory, uint64_t size, uint32_t at, unsigned bytes)
{
    ptx_aligned(at, bytes);
    if (at > size || size - at < bytes) ptx_die("shared memory out of range", at);
    return memory + at;
}

#endif
