#include "quant/divergence.h"

#include "gpu/host_vec.h"

typedef struct sums {
    double a, b, diff; /* sum of exp(a - max), of exp(b - max), of exp(a - max) (a - b) */
} sums;

/* Blocks of a few hundred in float32, those in float64. */
QD_VEC static sums add_up(const float *a, const float *b, uint64_t n, float top_a, float top_b)
{
    sums s = {0, 0, 0};
    for (uint64_t at = 0; at < n; at += 256) {
        float sa[QD_VEC_LANES] = {0}, sb[QD_VEC_LANES] = {0}, sd[QD_VEC_LANES] = {0};
        uint64_t end = at + 256 < n ? at + 256 : n, i = at;
        for (; i + QD_VEC_LANES <= end; i += QD_VEC_LANES)
            for (uint64_t k = 0; k < QD_VEC_LANES; k++) {
                float x = a[i + k] - top_a, y = b[i + k] - top_b, e = qd_exp(x);
                sa[k] += e;
                sb[k] += qd_exp(y);
                sd[k] += e > 0.0f ? e * (x - y) : 0.0f;
            }
        for (; i < end; i++) {
            float x = a[i] - top_a, y = b[i] - top_b, e = qd_exp(x);
            sa[0] += e;
            sb[0] += qd_exp(y);
            sd[0] += e > 0.0f ? e * (x - y) : 0.0f;
        }
        for (int k = 0; k < QD_VEC_LANES; k++) {
            s.a += (double)sa[k];
            s.b += (double)sb[k];
            s.diff += (double)sd[k];
        }
    }
    return s;
}

static uint64_t top_of(const float *x, uint64_t n)
{
    uint64_t top = 0;
    for (uint64_t i = 1; i < n; i++)
        if (x[i] > x[top]) top = i;
    return top;
}

qd_divergence qd_divergence_of(const float *a, const float *b, uint64_t n, uint64_t target)
{
    uint64_t ta = top_of(a, n), tb = top_of(b, n);
    sums s = add_up(a, b, n, a[ta], b[tb]);
    double log_a = log(s.a), log_b = log(s.b);
    return (qd_divergence){.kl = s.diff / s.a + log_b - log_a,
                           .nll_a = log_a - ((double)a[target] - (double)a[ta]),
                           .nll_b = log_b - ((double)b[target] - (double)b[tb]),
                           .same_top = ta == tb};
}
