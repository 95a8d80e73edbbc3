/* gptq_refine.c -- one more sweep over the blocks: each is quantized again around the place where, all others as they
 * are, the loss would be least, and a row keeps what it had where that is no better. So the loss never rises.
 *
 * With D = w - q and y = D L: the gradient of block b is G = D H_b = y L_b^T, its best place q + H_bb^-1 G^T, and the
 * loss above that of the best place G H_bb^-1 G^T = |M^-1 G^T|^2 with H_bb = M M^T, in which the block is quantized as
 * in gptq.h. */
#include "base/mem.h"
#include "quant/gptq.h"
#include "quant/gptq_block.h"
#include "quant/gptq_parts.h"

#include <math.h>
#include <string.h>

enum {
    B = QD_NVFP4_BLOCK
};

/* Lower Cholesky factor of h [B][B] in place, and the terms of a block that stands alone. */
static bool terms_of(double h[B][B], qd_gptq_block *t)
{
    for (int i = 0; i < B; i++)
        for (int j = 0; j <= i; j++) {
            double s = h[i][j];
            for (int k = 0; k < j; k++) s -= h[i][k] * h[j][k];
            if (i == j && !(s > 0 && s < (double)INFINITY)) return false;
            h[i][j] = i == j ? sqrt(s) : s / h[j][j];
        }
    for (int i = 0; i < B; i++) {
        t->weight[i] = (float)(h[i][i] * h[i][i]);
        t->inverse[i] = (float)(1.0 / h[i][i]);
        for (int j = 0; j < B; j++) t->share[j][i] = j > i ? (float)(h[j][i] / h[i][i]) : 0.0f;
    }
    return true;
}

/* v = M^-T M^-1 g; returns |M^-1 g|^2. */
static double solve(double m[B][B], const float *g, double *v)
{
    double loss = 0;
    for (int i = 0; i < B; i++) {
        double s = (double)g[i];
        for (int k = 0; k < i; k++) s -= m[i][k] * v[k];
        v[i] = s / m[i][i];
        loss += v[i] * v[i];
    }
    for (int i = B - 1; i >= 0; i--) {
        double s = v[i];
        for (int k = i + 1; k < B; k++) s -= m[k][i] * v[k];
        v[i] = s / m[i][i];
    }
    return loss;
}

typedef struct sweep {
    const qd_gptq_factor *f;
    const float *x; /* [n_rows][n] weights, columns in the factor's order, in units of 1 / gs */
    float *d, *y;   /* [n_rows][n] w - q, and that times L */
    float *g;       /* [n_rows][B] gradient, then the change of d */
    uint64_t n_rows;
    uint8_t *codes, *scales;
} sweep;

static void quantize_block(sweep *s, uint64_t b, double m[B][B], const qd_gptq_block *t)
{
    uint64_t n = s->f->n;
    for (uint64_t r = 0; r < s->n_rows; r += QD_GPTQ_LANES) {
        uint64_t lanes = qd_min_u64(QD_GPTQ_LANES, s->n_rows - r);
        double before[QD_GPTQ_LANES], v[B];
        qd_gptq_group group = {0};
        for (uint64_t lane = 0; lane < lanes; lane++) {
            const float *x = s->x + (r + lane) * n + b, *d = s->d + (r + lane) * n + b;
            before[lane] = solve(m, s->g + (r + lane) * B, v);
            for (int i = 0; i < B; i++)
                group.w[i][lane] = group.target[i][lane] = (float)((double)(x[i] - d[i]) + v[i]);
        }
        qd_gptq_group_run(t, &group);
        for (uint64_t lane = 0; lane < lanes; lane++) {
            const float *x = s->x + (r + lane) * n + b;
            float *d = s->d + (r + lane) * n + b, *change = s->g + (r + lane) * B;
            uint8_t code[B];
            bool better = (double)group.loss[lane] < before[lane];
            for (int i = 0; i < B; i++) {
                float now = better ? x[i] - (group.w[i][lane] - group.error[i][lane]) : d[i];
                code[i] = (uint8_t)group.code[i][lane];
                change[i] = now - d[i];
                d[i] = now;
            }
            if (better) qd_gptq_store(s->f, b, r + lane, code, (uint8_t)group.scale[lane], s->codes, s->scales);
        }
    }
}

qd_code qd_gptq_refine(qd_lane *lane, const qd_gptq_factor *f, uint64_t n_rows, float *scratch, uint8_t *codes,
                       uint8_t *scales, double *loss, qd_err *err)
{
    uint64_t n = f->n;
    sweep s = {.f = f, .x = scratch, .d = scratch + n_rows * n, .n_rows = n_rows, .codes = codes, .scales = scales};
    qd_code rc = QD_OK;
    s.y = s.d + n_rows * n;
    s.g = s.y + n_rows * n;
    QD_TRY(qd_gptq_product(lane, f, s.d, n_rows, s.y, err));
    for (uint64_t end = n; end > 0; end -= B) {
        uint64_t b = end - B;
        const float *l = f->l + b * n;
        float h[B * B];
        double m[B][B];
        qd_gptq_block t;
        QD_TRY(lane->ops->gemm(lane, true, B, B, end, l, n, l, n, false, h, B, err));
        for (int i = 0; i < B * B; i++) m[i / B][i % B] = (double)h[i];
        if (!terms_of(m, &t)) continue;
        QD_TRY(lane->ops->gemm(lane, true, n_rows, B, end, s.y, n, l, n, false, s.g, B, err));
        quantize_block(&s, b, m, &t);
        QD_TRY(lane->ops->gemm(lane, false, n_rows, end, B, s.g, B, l, n, true, s.y, n, err));
        QD_TRY(qd_lane_tick(lane, err));
    }
    for (uint64_t r = 0; r < n_rows; r++) {
        loss[r] = 0;
        for (uint64_t i = 0; i < n; i++) loss[r] += (double)s.y[r * n + i] * (double)s.y[r * n + i];
    }
    qd_gptq_undamp(f, s.d, n_rows, loss);
out:
    return rc;
}
