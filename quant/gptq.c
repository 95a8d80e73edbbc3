/* gptq.c -- panels of 128 columns: what the columns behind them ask for in one product, then block by block. */
#include "quant/gptq.h"

#include "base/mem.h"
#include "quant/gptq_block.h"
#include "quant/gptq_parts.h"

#include <string.h>

enum {
    PANEL = QD_GPTQ_PANEL,
    PRODUCT = 768 /* columns of a piece of d L */
};

uint64_t qd_gptq_scratch(const qd_gptq_factor *f, uint64_t n_rows)
{
    uint64_t rows = qd_div_up(n_rows, QD_GPTQ_LANES) * QD_GPTQ_LANES;
    return rows * (3 * f->n + PANEL); /* the third is of qd_gptq_refine() */
}

/* x [n_rows][n] = w in units of 1 / gs, columns in the factor's order. */
static void gather(const qd_gptq_factor *f, const float *w, uint64_t n_rows, float gs, float *x)
{
    for (uint64_t r = 0; r < n_rows; r++)
        for (uint64_t i = 0; i < f->n; i++) x[r * f->n + i] = w[r * f->n + f->order[i]] * gs;
}

/* sum [n_rows][PANEL] += errors of the block at b times L, for the columns of the panel from p to b. */
QD_VEC static void spread(const qd_gptq_factor *f, const float *d, uint64_t n_rows, uint64_t p, uint64_t b, float *sum)
{
    uint64_t n = b - p;
    for (uint64_t r = 0; r < n_rows; r++)
        for (uint64_t j = b; j < b + QD_NVFP4_BLOCK; j++) {
            const float *l = f->l + j * f->n + p;
            float e = d[r * f->n + j], *to = sum + r * PANEL;
            for (uint64_t i = 0; i < n; i++) to[i] = to[i] + e * l[i];
        }
}

static void block_terms(const qd_gptq_factor *f, uint64_t b, qd_gptq_block *t)
{
    for (uint64_t i = 0; i < QD_NVFP4_BLOCK; i++) {
        float own = f->l[(b + i) * f->n + b + i];
        t->weight[i] = own * own;
        t->inverse[i] = 1.0f / own;
        for (uint64_t j = 0; j < QD_NVFP4_BLOCK; j++)
            t->share[j][i] = j > i ? f->l[(b + j) * f->n + b + i] / own : 0.0f;
    }
}

void qd_gptq_store(const qd_gptq_factor *f, uint64_t b, uint64_t row, const uint8_t *code, uint8_t scale,
                   uint8_t *codes, uint8_t *scales)
{
    uint64_t block = f->order[b] / QD_NVFP4_BLOCK;
    uint8_t *to = codes + (row * f->n + block * QD_NVFP4_BLOCK) / 2;
    memset(to, 0, QD_NVFP4_BLOCK / 2);
    for (uint64_t i = 0; i < QD_NVFP4_BLOCK; i++) {
        uint32_t at = f->order[b + i] % QD_NVFP4_BLOCK;
        to[at / 2] = (uint8_t)(to[at / 2] | code[i] << (at % 2 * 4));
    }
    scales[row * (f->n / QD_NVFP4_BLOCK) + block] = scale;
}

static void quantize_block(const qd_gptq_factor *f, uint64_t p, uint64_t b, const float *x, float *d, uint64_t n_rows,
                           const float *sum, uint8_t *codes, uint8_t *scales, double *loss)
{
    qd_gptq_block t;
    block_terms(f, b, &t);
    for (uint64_t r = 0; r < n_rows; r += QD_GPTQ_LANES) {
        uint64_t n = qd_min_u64(QD_GPTQ_LANES, n_rows - r);
        qd_gptq_group g = {0};
        for (uint64_t lane = 0; lane < n; lane++)
            for (uint64_t i = 0; i < QD_NVFP4_BLOCK; i++) {
                g.w[i][lane] = x[(r + lane) * f->n + b + i];
                g.target[i][lane] = g.w[i][lane] + sum[(r + lane) * PANEL + b - p + i] * t.inverse[i];
            }
        qd_gptq_group_run(&t, &g);
        for (uint64_t lane = 0; lane < n; lane++) {
            uint8_t code[QD_NVFP4_BLOCK];
            for (uint64_t i = 0; i < QD_NVFP4_BLOCK; i++) {
                code[i] = (uint8_t)g.code[i][lane];
                d[(r + lane) * f->n + b + i] = g.error[i][lane];
            }
            qd_gptq_store(f, b, r + lane, code, (uint8_t)g.scale[lane], codes, scales);
            loss[r + lane] += (double)g.loss[lane];
        }
    }
}

void qd_gptq_undamp(const qd_gptq_factor *f, const float *d, uint64_t n_rows, double *loss)
{
    for (uint64_t r = 0; r < n_rows; r++) {
        double sum = 0;
        for (uint64_t i = 0; i < f->n; i++) sum += (double)d[r * f->n + i] * (double)d[r * f->n + i];
        loss[r] -= (double)f->damp * sum;
    }
}

qd_code qd_gptq_rows(qd_lane *lane, const qd_gptq_factor *f, const float *w, uint64_t n_rows, float gs, float *scratch,
                     uint8_t *codes, uint8_t *scales, double *ret_loss, qd_err *err)
{
    float *x = scratch, *d = x + n_rows * f->n, *sum = d + n_rows * f->n;
    qd_code rc = QD_OK;
    gather(f, w, n_rows, gs, x);
    memset(ret_loss, 0, n_rows * sizeof *ret_loss);
    for (uint64_t end = f->n; end > 0;) {
        uint64_t p = (end - 1) / PANEL * PANEL, done = f->n - end;
        memset(sum, 0, n_rows * PANEL * sizeof *sum);
        if (done != 0)
            QD_TRY(lane->ops->gemm(lane, false, n_rows, end - p, done, d + end, f->n, f->l + end * f->n + p, f->n,
                                   false, sum, PANEL, err));
        for (uint64_t b = end; b > p; b -= QD_NVFP4_BLOCK) {
            uint64_t at = b - QD_NVFP4_BLOCK;
            quantize_block(f, p, at, x, d, n_rows, sum, codes, scales, ret_loss);
            spread(f, d, n_rows, p, at, sum);
        }
        end = p;
        QD_TRY(qd_lane_tick(lane, err));
    }
    qd_gptq_undamp(f, d, n_rows, ret_loss);
out:
    return rc;
}

qd_code qd_gptq_product(qd_lane *lane, const qd_gptq_factor *f, const float *d, uint64_t n_rows, float *y, qd_err *err)
{
    qd_code rc = QD_OK;
    /* L has nothing above its diagonal. The last piece takes in rows of zeros, so that its sums are cut into blocks as
     * those of one product are: oneDNN's 2.6 have the same bits. */
    for (uint64_t p = 0; p < f->n; p += PRODUCT) {
        const uint64_t n = qd_min_u64(PRODUCT, f->n - p), from = n < PRODUCT && p != 0 ? p - PRODUCT : p;
        QD_TRY(lane->ops->gemm(lane, false, n_rows, n, f->n - from, d + from, f->n, f->l + from * f->n + p, f->n, false,
                               y + p, f->n, err));
        QD_TRY(qd_lane_tick(lane, err));
    }
out:
    return rc;
}

qd_code qd_gptq_loss(qd_lane *lane, const qd_gptq_factor *f, const float *w, const float *q, uint64_t n_rows, float gs,
                     float *scratch, double *ret_loss, qd_err *err)
{
    float *d = scratch, *y = d + n_rows * f->n;
    for (uint64_t r = 0; r < n_rows; r++)
        for (uint64_t i = 0; i < f->n; i++) {
            uint64_t at = r * f->n + f->order[i];
            d[r * f->n + i] = (w[at] - q[at]) * gs;
        }
    qd_code rc = qd_gptq_product(lane, f, d, n_rows, y, err);
    if (rc != QD_OK) return rc;
    for (uint64_t r = 0; r < n_rows; r++) {
        double sum = 0;
        for (uint64_t i = 0; i < f->n; i++) sum += (double)y[r * f->n + i] * (double)y[r * f->n + i];
        ret_loss[r] = sum;
    }
    qd_gptq_undamp(f, d, n_rows, ret_loss);
    return QD_OK;
}
