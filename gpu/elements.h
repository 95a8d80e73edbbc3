/* elements.h -- what the operations of a forward pass (gpu/ops.h) do to one element, once, for host C and for CUDA.
 *
 * Plain binary32 arithmetic without contraction, as in gpu/num.h: bit-identical on both sides. bf16 is a constant at
 * every call of the host, so that its loops vectorize. */
#ifndef QD_GPU_ELEMENTS_H
#define QD_GPU_ELEMENTS_H

#include "gpu/kernels.h"

#ifdef __CUDACC__
#define QD_ELEMENT __host__ __device__ static __forceinline__
#else
#define QD_ELEMENT static inline __attribute__((always_inline))
#endif

enum {
    QD_SUM_LANES = 16 /* partial sums of a reduction: element i goes to lane i % 16, lanes are added in a tree */
};

/* x rounded to BF16 and back; as qd_bf16_from_f32 in a form that vectorizes. */
QD_ELEMENT float qd_round_bf16(float x)
{
    uint32_t b = qd_f32_bits(x);
    uint32_t r = (b + 0x7fffu + ((b >> 16) & 1u)) & 0xffff0000u;
    uint32_t nan = (b & 0xffff0000u) | 0x400000u;
    return qd_bits_f32((b & 0x7fffffffu) > 0x7f800000u ? nan : r);
}

QD_ELEMENT float qd_rounded(float x, int bf16)
{
    return bf16 ? qd_round_bf16(x) : x;
}

/* exp(x) within 2 ulp; 0 below -87.3, infinity above 88.7; NaN stays. Source: range reduction by ln 2 in two parts and
 * the Taylor series to degree 7 on |r| <= ln(2)/2, whose remainder is below 2^-26. */
QD_ELEMENT float qd_exp(float x)
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

QD_ELEMENT float qd_sigmoid(float x)
{
    return 1.0f / (1.0f + qd_exp(-x));
}

QD_ELEMENT float qd_silu(float x)
{
    return x * qd_sigmoid(x);
}

/* f: 1 / rms. */
QD_ELEMENT float qd_norm_plain(float x, float f, float w, int bf16)
{
    return qd_rounded(w * qd_rounded(x * f, bf16), bf16);
}

QD_ELEMENT float qd_norm_plus_one(float x, float f, float w, int bf16)
{
    return qd_rounded(x * f * (1.0f + w), bf16);
}

QD_ELEMENT float qd_norm_gated(float x, float f, float w, float gate, int bf16)
{
    return qd_rounded(qd_rounded(w * qd_rounded(x * f, bf16), bf16) * qd_silu(gate), bf16);
}

QD_ELEMENT float qd_silu_mul(float g, float u, int bf16)
{
    return qd_rounded(qd_rounded(qd_silu(g), bf16) * u, bf16);
}

QD_ELEMENT float qd_gated(float x, float gate, int bf16)
{
    return qd_rounded(x * qd_rounded(qd_sigmoid(gate), bf16), bf16);
}

/* The plane (a, b) turned; each product is a BF16 tensor of its own. */
QD_ELEMENT float qd_rope_a(float a, float b, float cos, float sin, int bf16)
{
    return qd_rounded(qd_rounded(a * cos, bf16) - qd_rounded(b * sin, bf16), bf16);
}

QD_ELEMENT float qd_rope_b(float a, float b, float cos, float sin, int bf16)
{
    return qd_rounded(qd_rounded(b * cos, bf16) + qd_rounded(a * sin, bf16), bf16);
}

/* Behind the sum of a convolution. */
QD_ELEMENT float qd_conv_end(float sum, int bf16)
{
    float v = qd_rounded(sum, bf16);
    return qd_rounded(qd_silu(v), bf16);
}

QD_ELEMENT float qd_add_weighted(float x, float y, float w, int bf16)
{
    return qd_rounded(x + qd_rounded(y * w, bf16), bf16);
}

QD_ELEMENT float qd_score(float s, float scale, int bf16)
{
    return qd_rounded(qd_rounded(s, bf16) * scale, bf16);
}

/* Block scale of activations under the global scale gs; bits: the block's largest magnitude. */
QD_ELEMENT float qd_fake_scale(float gs, uint32_t bits)
{
    float amax = qd_bits_f32(bits) * gs;
    return amax > 0.0f ? qd_e4m3_to_f32((uint8_t)qd_nvfp4_scale_code(amax / 6.0f)) : 0.125f;
}

/* v to E2M1 and back under the block scale s; rcp: 1 / s. As qd_e2m1_round() of gpu/kernels.h. */
QD_ELEMENT float qd_fake_element(float v, float gs, float s, float rcp)
{
    float t = fabsf(v) * gs * rcp;
    t = t < QD_E2M1_MAX ? t : QD_E2M1_MAX;
    uint32_t e = qd_f32_bits(t) & 0x7f800000u;
    e = e < 0x3f800000u ? 0x3f800000u : e;
    float big = qd_bits_f32(e + (22u << 23));
    float r = ((t + big) - big) * s / gs;
    return v < 0.0f ? -r : r;
}

/* The largest logit that is not taken yet; -1 where there is none. NaN counts as least. */
QD_ELEMENT int64_t qd_best_left(const float *logits, uint32_t n, const uint32_t *taken, uint32_t n_taken)
{
    int64_t best = -1;
    for (uint32_t e = 0; e < n; e++) {
        int skip = 0;
        for (uint32_t k = 0; k < n_taken; k++) skip |= taken[k] == e;
        if (!skip && (best < 0 || logits[e] > logits[best] || (logits[best] != logits[best] && logits[e] == logits[e])))
            best = e;
    }
    return best;
}

/* The routing of one token, see gpu/ops.h. */
QD_ELEMENT void qd_route_row(const float *logits, uint32_t n, uint32_t top_k, int normalize, int rounded,
                             uint32_t *index, float *weight, float *margin)
{
    for (uint32_t k = 0; k < top_k; k++) index[k] = (uint32_t)qd_best_left(logits, n, index, k);
    float top = logits[index[0]], sum = 0, taken = 0;
    for (uint32_t e = 0; e < n; e++) sum += qd_exp(logits[e] - top);
    for (uint32_t k = 0; k < top_k; k++) {
        weight[k] = qd_exp(logits[index[k]] - top) / sum;
        taken += weight[k];
    }
    int64_t next = top_k < n ? qd_best_left(logits, n, index, top_k) : -1;
    *margin = next < 0 ? 1.0f : weight[top_k - 1] - qd_exp(logits[next] - top) / sum;
    for (uint32_t k = 0; k < top_k; k++) {
        if (normalize) weight[k] /= taken;
        weight[k] = qd_rounded(weight[k], rounded);
    }
}

#endif
