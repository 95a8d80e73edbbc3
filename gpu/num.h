/* num.h -- scalar numerics of the small float formats, one definition for host C and for CUDA.
 *
 * Only + - * / and fmaf on binary32, integer operations and comparisons: bit-identical on every IEEE-754 target while
 * contraction is off (-ffp-contract=off, nvcc -fmad=false) and denormals are kept (no fast-math, no -ftz). Source: OCP
 * Microscaling Formats v1.0 (E2M1), OCP 8-bit Floating Point v1.0 (E4M3), PTX ISA cvt.rn.satfinite. */
#ifndef QD_GPU_NUM_H
#define QD_GPU_NUM_H

#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define QD_HD __host__ __device__ static inline
#else
#define QD_HD static inline
#endif

/* Conversions in hardware, the same bits: E4M3 from sm_89 on, E2M1 where the architecture's own features are compiled
 * for. Source: PTX ISA 9.0, cvt.rn.satfinite.e4m3x2.f32 and .e2m1x2.f32. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
#define QD_CVT_E4M3
#endif
#if defined(__CUDA_ARCH_FEAT_SM100_ALL) || defined(__CUDA_ARCH_FEAT_SM120_ALL)
#define QD_CVT_E2M1
#endif

#define QD_E2M1_MAX 6.0f
#define QD_E4M3_MAX 448.0f
enum {
    QD_E4M3_MAX_CODE = 0x7e,
    QD_E4M3_EIGHTH = 0x20 /* 0.125 */
};

QD_HD uint32_t qd_f32_bits(float x)
{
    union {
        float f;
        uint32_t u;
    } v;
    v.f = x;
    return v.u;
}

QD_HD float qd_bits_f32(uint32_t u)
{
    union {
        float f;
        uint32_t u;
    } v;
    v.u = u;
    return v.f;
}

QD_HD float qd_bf16_to_f32(uint16_t h)
{
    return qd_bits_f32((uint32_t)h << 16);
}

/* Nearest, ties to even; a NaN stays a quiet NaN. */
QD_HD uint16_t qd_bf16_from_f32(float x)
{
    uint32_t b = qd_f32_bits(x);
    if ((b & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((b >> 16) | 0x40u);
    return (uint16_t)((b + 0x7fffu + ((b >> 16) & 1u)) >> 16);
}

QD_HD float qd_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = (h >> 10) & 0x1fu, m = h & 0x3ffu;
    if (e == 31) return qd_bits_f32(sign | 0x7f800000u | (m << 13));
    if (e == 0) {
        float v = (float)m * 0x1p-24f;
        return sign != 0 ? -v : v;
    }
    return qd_bits_f32(sign | ((e + 112u) << 23) | (m << 13));
}

/* Nearest, ties to even; beyond the range: infinity. */
QD_HD uint16_t qd_f16_from_f32(float x)
{
    uint32_t b = qd_f32_bits(x), sign = (b >> 16) & 0x8000u, a = b & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* >= 65520 rounds to infinity */
    if (a < 0x38800000u) {                                   /* below 2^-14: steps of 2^-24, rounded by an addition */
        float t = qd_bits_f32(a) * 0x1p24f + 8388608.0f;
        return (uint16_t)(sign | (qd_f32_bits(t) & 0x7ffu));
    }
    return (uint16_t)(sign | ((a + 0xfffu + ((a >> 13) & 1u) - 0x38000000u) >> 13));
}

/* E2M1 code (sign in bit 3) of x: nearest, ties to even, saturating at +-6, NaN -> +6, the sign of -0 kept: what the
 * hardware does. */
QD_HD uint8_t qd_e2m1_from_f32(float x)
{
    uint32_t sign = (qd_f32_bits(x) >> 28) & 8u, m;
    float a = fabsf(x);
    if (!(a == a)) return 7;
    if (a <= 0.25f)
        m = 0;
    else if (a < 0.75f)
        m = 1;
    else if (a <= 1.25f)
        m = 2;
    else if (a < 1.75f)
        m = 3;
    else if (a <= 2.5f)
        m = 4;
    else if (a < 3.5f)
        m = 5;
    else if (a <= 5.0f)
        m = 6;
    else
        m = 7;
    return (uint8_t)(sign | m);
}

#ifdef QD_CVT_E2M1
/* Codes of two elements as qd_e2m1_from_f32() gives them, the first in the low nibble. */
__device__ static inline uint8_t qd_e2m1_pair(float first, float second)
{
    uint16_t codes;
    asm("{\n\t.reg .b8 codes;\n\t"
        "cvt.rn.satfinite.e2m1x2.f32 codes, %2, %1;\n\t"
        "cvt.u16.u8 %0, codes;\n\t}"
        : "=h"(codes)
        : "f"(first), "f"(second));
    return (uint8_t)codes;
}
#endif

QD_HD float qd_e2m1_to_f32(uint8_t code)
{
    uint32_t m = code & 7u;
    float v = m < 5 ? (float)m * 0.5f : m == 5 ? 3.0f : m == 6 ? 4.0f : 6.0f;
    return (code & 8u) != 0 ? -v : v;
}

/* E4M3FN code of x: nearest, ties to even, saturating at 448; NaN -> 0x7f. */
QD_HD uint8_t qd_e4m3_from_f32(float x)
{
#ifdef QD_CVT_E4M3
    uint16_t codes; /* of zero and of x */
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(0.0f), "f"(x));
    return (uint8_t)codes;
#else
    uint32_t b = qd_f32_bits(x), sign = (b >> 24) & 0x80u, a = b & 0x7fffffffu;
    if (a > 0x7f800000u) return 0x7f;
    if (a >= 0x43e00000u) return (uint8_t)(sign | QD_E4M3_MAX_CODE); /* >= 448 */
    if (a < 0x3c800000u) {                                           /* below 2^-6: steps of 2^-9 */
        float t = qd_bits_f32(a) * 512.0f + 8388608.0f;
        return (uint8_t)(sign | (qd_f32_bits(t) & 0xfu));
    }
    return (uint8_t)(sign | (((a + 0x7ffffu + ((a >> 20) & 1u)) >> 20) - (120u << 3)));
#endif
}

QD_HD float qd_e4m3_to_f32(uint8_t code)
{
    uint32_t sign = (uint32_t)(code & 0x80u) << 24;
    if ((code & 0x7fu) == 0x7fu) return qd_bits_f32(sign | 0x7fc00000u);
    float v = qd_bits_f32((uint32_t)(code & 0x7fu) << 20) * 0x1p120f; /* exact, subnormal codes included */
    return sign != 0 ? -v : v;
}

#endif
