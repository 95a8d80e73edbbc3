/* patterns.h -- weights that are hard on an encoder: ties, denormals, outliers and the ends of the range. */
#ifndef QD_TESTS_PATTERNS_H
#define QD_TESTS_PATTERNS_H

#include "base/dtype.h"
#include "gpu/num.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef enum pattern {
    P_NORMAL,
    P_SPREADS,   /* every block its own magnitude over 40 binades */
    P_HEAVY,     /* cubes of normals */
    P_GRID,      /* E2M1 values and the ties between them, times an E4M3 value */
    P_DENORMAL,  /* below the dtype's normal range */
    P_ZERO,      /* zeros of both signs, a few blocks with one element */
    P_OUTLIER,   /* one large element in a block of small ones */
    P_HUGE,      /* near the end of the dtype's range */
    P_BITS,      /* any finite bit pattern */
    P_SCALE_TIE, /* amax / 6 half way between two E4M3 values */
    P_COUNT
} pattern;

static inline uint32_t pattern_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 32);
}

static inline float pattern_uniform(uint64_t *state)
{
    return (float)(pattern_random(state) >> 8) * 0x1p-24f;
}

static inline float pattern_normal(uint64_t *state)
{
    float sum = -6.0f;
    for (int i = 0; i < 12; i++) sum += pattern_uniform(state);
    return sum;
}

static inline uint64_t pattern_below(uint64_t *state, uint32_t n)
{
    return pattern_random(state) % n;
}

/* One block as floats, not yet rounded to the dtype. */
static inline void pattern_block(pattern p, uint64_t block, uint64_t *state, float *w)
{
    static const float grid[] = {0.0f, 0.25f, 0.5f, 0.75f, 1.0f, 1.25f, 1.5f, 1.75f,
                                 2.0f, 2.5f,  3.0f, 3.5f,  4.0f, 5.0f,  6.0f};
    float s = qd_e4m3_to_f32((uint8_t)(1 + pattern_below(state, 126))), outlier = 0.0f;
    for (int i = 0; i < 16; i++) {
        float z = pattern_normal(state);
        switch (p) {
        case P_SPREADS:
            w[i] = ldexpf(z, (int)(block % 40) - 30);
            break;
        case P_HEAVY:
            w[i] = z * z * z;
            break;
        case P_GRID:
            w[i] = copysignf(grid[pattern_below(state, 15)] * s, z);
            break;
        case P_DENORMAL:
            w[i] = z * 1e-39f;
            break;
        case P_ZERO:
            w[i] = copysignf(block % 5 == 0 && i == (int)(block % 16) ? 0.7f : 0.0f, z);
            break;
        case P_OUTLIER:
            w[i] = z * 0.003f;
            break;
        case P_HUGE:
            w[i] = z * 0.9e38f;
            break;
        case P_BITS:
            w[i] = qd_bits_f32(pattern_random(state) & 0xff7fffffu);
            break;
        case P_SCALE_TIE:
            w[i] = i == 3 ? 3.0f * (s + qd_e4m3_to_f32((uint8_t)(qd_e4m3_from_f32(s) - 1u))) : z * s;
            break;
        default:
            w[i] = z * 0.02f;
            break;
        }
    }
    if (p == P_OUTLIER) outlier = ldexpf(1.0f, (int)(block % 9) - 4);
    if (p == P_OUTLIER) w[block % 16] = copysignf(outlier, w[0]);
    if (p == P_GRID) w[block % 16] = 6.0f * s;
}

/* Stores v in the dtype, kept finite. */
static inline void pattern_store(qd_dtype dtype, float v, void *w, uint64_t i)
{
    uint16_t h = dtype == QD_BF16 ? qd_bf16_from_f32(v) : qd_f16_from_f32(v);
    uint32_t infinity = dtype == QD_BF16 ? 0x7f80u : 0x7c00u;
    if ((h & 0x7fffu) >= infinity) h = (uint16_t)((h & 0x8000u) | (infinity - 1));
    if (!(fabsf(v) <= 0x1.fffffep127f)) v = copysignf(0x1.fffffep127f, v);
    if (dtype == QD_F32)
        memcpy((unsigned char *)w + 4 * i, &v, 4);
    else
        memcpy((unsigned char *)w + 2 * i, &h, 2);
}

static inline float pattern_load(qd_dtype dtype, const void *w, uint64_t i)
{
    float v;
    uint16_t h;
    if (dtype == QD_F32) {
        memcpy(&v, (const unsigned char *)w + 4 * i, 4);
        return v;
    }
    memcpy(&h, (const unsigned char *)w + 2 * i, 2);
    return dtype == QD_BF16 ? qd_bf16_to_f32(h) : qd_f16_to_f32(h);
}

static inline void pattern_fill(pattern p, qd_dtype dtype, uint64_t n_blocks, uint64_t seed, void *w)
{
    uint64_t state = 88172645463325252ull + seed * 1000003u;
    float range = dtype == QD_F16 && (p == P_DENORMAL || p == P_HUGE || p == P_BITS) ? 0.0f : 1.0f;
    for (uint64_t b = 0; b < n_blocks; b++) {
        float block[16];
        pattern_block(p, b, &state, block);
        for (uint64_t i = 0; i < 16; i++) {
            float v = block[i];
            if (range == 0.0f && p == P_DENORMAL) v *= 1e33f;
            if (range == 0.0f && p == P_HUGE) v *= 2e-34f;
            if (range == 0.0f && p == P_BITS) v = qd_f16_to_f32((uint16_t)(qd_f32_bits(v) >> 16 & 0xfbffu));
            pattern_store(dtype, v, w, b * 16 + i);
        }
    }
}

#endif
