/* kernels.h -- the arithmetic of an NVFP4 block, written once: the plain reference, what a CUDA thread runs, and what
 * every vectorized host version must equal bit for bit.
 *
 * fp32 arithmetic works on x = |w| * gs (one rounding), so that a block's scale s is a bare E4M3 value:
 *   t = min(x * (1 / s), 6);  r = e2m1(t);  error = x - r * s (fused);  decoded weight = r * s / gs.
 * All sums run over the 16 elements in order. Conventions and sources: gpu/nvfp4.h. */
#ifndef QD_GPU_KERNELS_H
#define QD_GPU_KERNELS_H

#include "gpu/num.h"
#include "gpu/nvfp4.h"

/* Codes the sweep goes below amax / 6 at most. Without weights its own bound stops it within 12 (docs/numerics.md); a
 * zero weight on the largest element would let it run on. */
enum {
    QD_SWEEP_DOWN_MAX = 24
};

typedef struct qd_nvfp4_block_sums {
    float err2, w2;
    uint32_t clipped, zero;
} qd_nvfp4_block_sums;

/* E2M1 rounding of 0 <= t <= 6, ties to even: adding 2^(e + 22), e = max(exponent of t, 0), leaves t in steps of 2^(e -
 * 1), which are E2M1's. *ret_code gets the 3-bit magnitude: n + 2e where n is the number of steps. */
QD_HD float qd_e2m1_round(float t, uint32_t *ret_code)
{
    uint32_t e = qd_f32_bits(t) & 0x7f800000u;
    if (e < 0x3f800000u) e = 0x3f800000u;
    float big = qd_bits_f32(e + (22u << 23));
    float y = t + big;
    uint32_t b = qd_f32_bits(y);
    *ret_code = (b + (b >> 22) - 10u) & 7u; /* b >> 22 = 2 * (e + 149) = 2e + 298, and 298 - 10 is a multiple of 8 */
    return y - big;
}

/* Weighted squared error of the block x[16] under scale code c; weight NULL means 1. */
QD_HD float qd_nvfp4_block_error(const float *x, const float *weight, uint32_t c)
{
    float s = qd_e4m3_to_f32((uint8_t)c), rcp = 1.0f / s, sum = 0.0f;
    for (int i = 0; i < QD_NVFP4_BLOCK; i++) {
        uint32_t code;
        float r = qd_e2m1_round(fminf(x[i] * rcp, QD_E2M1_MAX), &code);
        float d = fmaf(-r, s, x[i]);
        sum = fmaf(weight != 0 ? weight[i] * d : d, d, sum);
    }
    return sum;
}

/* The scale code with the least error. Starts at amax / 6 and goes up while it can pay: from s >= amax / 3 on, s / 2
 * (representable from code 16 up) has every level that s uses, so s cannot win. Then down until the largest element
 * alone, clipped to 6 s, costs as much as the best. */
QD_HD uint32_t qd_nvfp4_sweep(const float *x, const float *weight, float amax, float amax_weight, uint32_t c0)
{
    float best = qd_nvfp4_block_error(x, weight, c0);
    uint32_t pick = c0;
    for (uint32_t c = c0 + 1; c <= QD_E4M3_MAX_CODE && (c < 16 || 3.0f * qd_e4m3_to_f32((uint8_t)c) < amax); c++) {
        float e = qd_nvfp4_block_error(x, weight, c);
        if (e < best) {
            best = e;
            pick = c;
        }
    }
    for (uint32_t c = c0 - 1; c >= 1 && c0 - c <= QD_SWEEP_DOWN_MAX; c--) {
        float over = fmaf(-6.0f, qd_e4m3_to_f32((uint8_t)c), amax);
        if (!(amax_weight * over * over < best)) break;
        float e = qd_nvfp4_block_error(x, weight, c);
        if (e < best) {
            best = e;
            pick = c;
        }
    }
    return pick;
}

QD_HD uint32_t qd_nvfp4_scale_code(float s)
{
    uint32_t c = qd_e4m3_from_f32(s);
    return c == 0 ? 1u : c;
}

/* The code of element i with magnitude 0 <= t <= 6, whose magnitude code is m; i rises, *before holds what the element
 * before left. */
QD_HD void qd_nvfp4_put(uint8_t *codes, int i, float t, uint32_t m, int negative, float *before)
{
#ifdef QD_CVT_E2M1
    const float v = negative ? -t : t;
    (void)m;
    if (i % 2 == 1) codes[i / 2] = qd_e2m1_pair(*before, v);
    *before = v;
#else
    const uint32_t code = m | (negative ? 8u : 0u);
    (void)t;
    (void)before;
    codes[i / 2] = (uint8_t)(i % 2 == 0 ? code : codes[i / 2] | (code << 4));
#endif
}

/* fp32 arithmetic. w [16] finite; weight [16] or NULL (QD_RULE_MSE only); codes [8]. */
QD_HD qd_nvfp4_block_sums qd_nvfp4_block_fp32(const float *w, const float *weight, float gs, qd_nvfp4_rule rule,
                                              uint8_t *codes, uint8_t *scale)
{
    float x[QD_NVFP4_BLOCK], amax = 0.0f, amax_weight = 1.0f;
    for (int i = 0; i < QD_NVFP4_BLOCK; i++) {
        x[i] = fabsf(w[i]) * gs;
        if (x[i] > amax) {
            amax = x[i];
            if (weight != 0) amax_weight = weight[i];
        }
    }
    uint32_t c = QD_E4M3_EIGHTH;
    if (amax > 0.0f) {
        c = qd_nvfp4_scale_code(amax / 6.0f);
        if (rule == QD_RULE_FOUR_OVER_SIX) {
            uint32_t c4 = qd_nvfp4_scale_code(amax / 4.0f);
            if (qd_nvfp4_block_error(x, 0, c4) < qd_nvfp4_block_error(x, 0, c)) c = c4;
        } else if (rule == QD_RULE_MSE) {
            c = qd_nvfp4_sweep(x, weight, amax, amax_weight, c);
        }
    }
    float s = qd_e4m3_to_f32((uint8_t)c), rcp = 1.0f / s, before = 0.0f;
    qd_nvfp4_block_sums sums = {0.0f, 0.0f, amax > 6.0f * s ? 1u : 0u, 1u};
    for (int i = 0; i < QD_NVFP4_BLOCK; i++) {
        uint32_t m;
        float t = fminf(x[i] * rcp, QD_E2M1_MAX), r = qd_e2m1_round(t, &m);
        float d = fmaf(-r, s, x[i]);
        sums.err2 = fmaf(d, d, sums.err2);
        sums.w2 = fmaf(x[i], x[i], sums.w2);
        if (r != 0.0f) sums.zero = 0;
        qd_nvfp4_put(codes, i, t, m, w[i] < 0.0f, &before);
    }
    *scale = (uint8_t)c;
    return sums;
}

/* Rounds to the weight dtype of a compressed-tensors arithmetic. */
QD_HD float qd_ct_round(float v, qd_nvfp4_arith arith)
{
    if (arith == QD_ARITH_CT_BF16) return qd_bf16_to_f32(qd_bf16_from_f32(v));
    if (arith == QD_ARITH_CT_F16) return qd_f16_to_f32(qd_f16_from_f32(v));
    return v;
}

/* compressed-tensors 0.20's arithmetic, min-max: the raw scale is rounded to the weight dtype, a zero scale becomes
 * 0.125, codes come from a true division by the effective scale. */
QD_HD qd_nvfp4_block_sums qd_nvfp4_block_ct(const float *w, float gs, qd_nvfp4_arith arith, uint8_t *codes,
                                            uint8_t *scale)
{
    float amax = 0.0f;
    for (int i = 0; i < QD_NVFP4_BLOCK; i++) amax = fmaxf(amax, fabsf(w[i]));
    uint32_t c = qd_e4m3_from_f32(qd_ct_round(amax / 6.0f, arith) * gs);
    if (c == 0) c = QD_E4M3_EIGHTH;
    float s = qd_e4m3_to_f32((uint8_t)c), step = s / gs, before = 0.0f;
    qd_nvfp4_block_sums sums = {0.0f, 0.0f, amax > 6.0f * step ? 1u : 0u, 1u};
    for (int i = 0; i < QD_NVFP4_BLOCK; i++) {
        uint32_t m;
        float q = w[i] / step, x = fabsf(w[i]) * gs;
        float t = fminf(fabsf(q), QD_E2M1_MAX), r = qd_e2m1_round(t, &m);
        float d = fmaf(-r, s, x);
        sums.err2 = fmaf(d, d, sums.err2);
        sums.w2 = fmaf(x, x, sums.w2);
        if (r != 0.0f) sums.zero = 0;
        qd_nvfp4_put(codes, i, t, m, q < 0.0f, &before);
    }
    *scale = (uint8_t)c;
    return sums;
}

QD_HD qd_nvfp4_block_sums qd_nvfp4_block(const float *w, const float *weight, float gs, qd_nvfp4_rule rule,
                                         qd_nvfp4_arith arith, uint8_t *codes, uint8_t *scale)
{
    if (arith != QD_ARITH_FP32) return qd_nvfp4_block_ct(w, gs, arith, codes, scale);
    return qd_nvfp4_block_fp32(w, weight, gs, rule, codes, scale);
}

#endif
