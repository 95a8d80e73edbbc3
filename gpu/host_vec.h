/* host_vec.h -- private to the host's operations: loops that the compiler vectorizes for each instruction set, with the
 * same bits on all of them (no contraction, sums over a fixed number of lanes). */
#ifndef QD_GPU_HOST_VEC_H
#define QD_GPU_HOST_VEC_H

#include "gpu/num.h"

#include <stdint.h>

/* A function compiled for several instruction sets, the best picked at load time. Sanitizers run before the resolver
 * may, and clang 14 gives resolvers names that clash. */
#if defined(__x86_64__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define QD_VEC __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define QD_VEC
#endif
#define QD_INLINE static inline __attribute__((always_inline))

enum {
    QD_VEC_LANES = 16 /* partial sums of a reduction, on every instruction set */
};

/* x rounded to BF16 and back; as qd_bf16_from_f32 in a form that vectorizes. */
QD_INLINE float qd_round_bf16(float x)
{
    uint32_t b = qd_f32_bits(x);
    uint32_t r = (b + 0x7fffu + ((b >> 16) & 1u)) & 0xffff0000u;
    uint32_t nan = (b & 0xffff0000u) | 0x400000u;
    return qd_bits_f32((b & 0x7fffffffu) > 0x7f800000u ? nan : r);
}

/* exp(x) within 2 ulp; 0 below -87.3, infinity above 88.7; NaN stays. Source: range reduction by ln 2 in two parts and
 * the Taylor series to degree 7 on |r| <= ln(2)/2, whose remainder is below 2^-26. */
QD_INLINE float qd_exp(float x)
{
    float c = x > 88.72283f ? 88.72283f : x;
    c = c < -87.33654f ? -87.33654f : c;
    float n = (c * 0x1.715476p+0f + 0x1.8p23f) - 0x1.8p23f;
    float r = c - n * 0x1.62e4p-1f;
    r = r - n * 0x1.7f7d1cp-20f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    /* 2^n in two steps: n may be 128 */
    int32_t k = (int32_t)n, half = k / 2;
    float y = p * qd_bits_f32((uint32_t)(half + 127) << 23) * qd_bits_f32((uint32_t)(k - half + 127) << 23);
    y = x < -87.33654f ? 0.0f : y;
    y = x > 88.72283f ? qd_bits_f32(0x7f800000u) : y;
    return x != x ? x : y;
}

QD_INLINE float qd_sigmoid(float x)
{
    return 1.0f / (1.0f + qd_exp(-x));
}

/* Partial sums to one, in a fixed tree. */
QD_INLINE float qd_lanes_sum(const float s[QD_VEC_LANES])
{
    float t[QD_VEC_LANES];
    for (int i = 0; i < QD_VEC_LANES; i++) t[i] = s[i];
    for (int step = QD_VEC_LANES / 2; step > 0; step /= 2)
        for (int i = 0; i < step; i++) t[i] += t[i + step];
    return t[0];
}

#endif
