/* host_conv.c -- what comes before the delta rule: the short causal convolution, the step sizes and the decays. */
#include "gpu/host_ops.h"
#include "gpu/host_vec.h"

/* One token: taps rows of x, the last one the token itself; w is [n][taps]. */
QD_VEC static void conv_row(const float *x, uint64_t ldx, uint64_t first, uint64_t taps, const float *w, uint64_t n,
                            float *y, bool bf16)
{
    for (uint64_t c = 0; c < n; c++) y[c] = 0;
    for (uint64_t j = first; j < taps; j++) {
        const float *row = x + (j - first) * ldx;
        for (uint64_t c = 0; c < n; c++) y[c] += w[c * taps + j] * row[c];
    }
    if (!bf16) {
        for (uint64_t c = 0; c < n; c++) y[c] = qd_conv_end(y[c], 0);
        return;
    }
    for (uint64_t c = 0; c < n; c++) y[c] = qd_conv_end(y[c], 1);
}

void qd_host_conv_silu(const qd_lane *l, const float *x, uint64_t ldx, uint64_t rows, uint64_t n, const float *w,
                       uint64_t taps, float *y, uint64_t ldy)
{
    for (uint64_t t = 0; t < rows; t++) {
        uint64_t first = t + 1 < taps ? taps - 1 - t : 0; /* taps that lie before the sequence */
        conv_row(x + (t + 1 + first - taps) * ldx, ldx, first, taps, w, n, y + t * ldy, l->bf16);
    }
}

static float softplus(float x)
{
    return x > 20.0f ? x : log1pf(expf(x)); /* as torch: linear where the difference is below half an ulp */
}

void qd_host_decay(const qd_lane *l, const float *b, uint64_t ldb, const float *a, uint64_t lda, const float *a_log,
                   const float *dt_bias, uint64_t rows, uint64_t n, float *beta, float *g)
{
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t h = 0; h < n; h++) {
            float s = qd_sigmoid(b[r * ldb + h]);
            beta[r * n + h] = l->bf16 ? qd_round_bf16(s) : s;
            g[r * n + h] = -expf(a_log[h]) * softplus(a[r * lda + h] + dt_bias[h]);
        }
}
