/* host_norm.c -- RMS norms: over hidden vectors, over heads, and gated by silu. */
#include "gpu/host_ops.h"
#include "gpu/host_vec.h"

QD_VEC static float inverse_rms(const float *x, uint64_t n, float eps)
{
    float s[QD_VEC_LANES] = {0};
    uint64_t i = 0;
    for (; i + QD_VEC_LANES <= n; i += QD_VEC_LANES)
        for (int k = 0; k < QD_VEC_LANES; k++) s[k] += x[i + (uint64_t)k] * x[i + (uint64_t)k];
    for (int k = 0; i < n; i++, k++) s[k] += x[i] * x[i];
    return 1.0f / sqrtf(qd_lanes_sum(s) / (float)n + eps);
}

QD_VEC static void scale_plain(const float *x, float f, const float *w, uint64_t n, float *y, bool bf16)
{
    if (bf16)
        for (uint64_t i = 0; i < n; i++) y[i] = qd_norm_plain(x[i], f, w[i], 1);
    else
        for (uint64_t i = 0; i < n; i++) y[i] = qd_norm_plain(x[i], f, w[i], 0);
}

QD_VEC static void scale_plus_one(const float *x, float f, const float *w, uint64_t n, float *y, bool bf16)
{
    if (bf16)
        for (uint64_t i = 0; i < n; i++) y[i] = qd_norm_plus_one(x[i], f, w[i], 1);
    else
        for (uint64_t i = 0; i < n; i++) y[i] = qd_norm_plus_one(x[i], f, w[i], 0);
}

void qd_host_rms_norm(const qd_lane *l, const float *x, uint64_t ldx, uint64_t rows, uint64_t n_heads, uint64_t head_x,
                      uint64_t n, const float *w, qd_norm_kind kind, float eps, float *y, uint64_t ldy, uint64_t head_y)
{
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t h = 0; h < n_heads; h++) {
            const float *from = x + r * ldx + h * head_x;
            float *to = y + r * ldy + h * head_y, f = inverse_rms(from, n, eps);
            if (kind == QD_NORM_PLUS_ONE)
                scale_plus_one(from, f, w, n, to, l->bf16);
            else
                scale_plain(from, f, w, n, to, l->bf16);
        }
}

QD_VEC static void scale_gated(const float *x, float f, const float *w, const float *gate, uint64_t n, float *y,
                               bool bf16)
{
    if (bf16)
        for (uint64_t i = 0; i < n; i++) y[i] = qd_norm_gated(x[i], f, w[i], gate[i], 1);
    else
        for (uint64_t i = 0; i < n; i++) y[i] = qd_norm_gated(x[i], f, w[i], gate[i], 0);
}

void qd_host_gated_norm(const qd_lane *l, const float *x, const float *gate, uint64_t ldg, uint64_t rows,
                        uint64_t n_heads, uint64_t n, const float *w, float eps, float *y)
{
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t h = 0; h < n_heads; h++) {
            const float *from = x + (r * n_heads + h) * n;
            scale_gated(from, inverse_rms(from, n, eps), w, gate + r * ldg + h * n, n, y + (r * n_heads + h) * n,
                        l->bf16);
        }
}
