/* strength.c -- how strongly a site is scaled: the estimate of its outputs' error for each candidate, on some rows of
 * its weights and some tokens. */
#include "base/mem.h"
#include "engine/layer_work.h"
#include "engine/rounded.h"
#include "gpu/host_blocks.h"
#include "quant/nvfp4.h"

#include <math.h>
#include <string.h>

enum {
    ROWS_MAX = 64 /* of each linear, evenly spaced */
};

typedef struct trial {
    const qd_layer_work *w;
    uint32_t site, n;
    const double *mean2, *weight2; /* [n] of inputs; of the site's weights, mean over rows */
    const float *s;                /* [n] */
    float *row, *q, *col_weight;   /* [n] */
    uint8_t *codes, *scales;
} trial;

static float largest(const float *v, uint32_t n)
{
    float most = 0;
    for (uint32_t k = 0; k < n; k++) most = fmaxf(most, fabsf(v[k]));
    return most;
}

/* What rounding the weights costs: mean over tokens and rows, inputs taken as independent. */
static qd_code weight_error(trial *t, double *ret, qd_err *err)
{
    const qd_run *run = t->w->run;
    const qd_input_site *site = &t->w->sites[t->site];
    double sum = 0, most = 0;
    uint64_t n_rows = 0;
    for (uint32_t k = 0; k < t->n; k++) most = fmax(most, t->mean2[k] / ((double)t->s[k] * (double)t->s[k]));
    for (uint32_t k = 0; k < t->n; k++)
        t->col_weight[k] = most > 0 ? (float)(t->mean2[k] / ((double)t->s[k] * (double)t->s[k]) / most) : 1.0f;
    for (uint32_t i = 0; i < site->n_items; i++) {
        uint64_t rows = run->plan->items[site->items[i]].rows, step = qd_div_up(rows, ROWS_MAX);
        for (uint64_t r = 0; r < rows; r += step, n_rows++) {
            qd_nvfp4_sums unused;
            qd_code rc = qd_work_rows(t->w, t->site, site->items[i], r, 1, t->row, err);
            if (rc != QD_OK) return rc;
            for (uint32_t k = 0; k < t->n; k++) t->row[k] *= t->s[k];
            float gs = qd_nvfp4_global(&run->plan->recipe, QD_F32, largest(t->row, t->n));
            qd_nvfp4_tile tile = {.dtype = (int)QD_F32,
                                  .rule = run->plan->recipe.rule,
                                  .arith = QD_ARITH_FP32,
                                  .gs = gs,
                                  .w = t->row,
                                  .col_weight = run->plan->method.hessian_scale ? t->col_weight : NULL,
                                  .blocks_per_row = t->n / QD_NVFP4_BLOCK,
                                  .n_blocks = t->n / QD_NVFP4_BLOCK,
                                  .codes = t->codes,
                                  .scales = t->scales};
            rc = run->dev->ops->nvfp4_encode(run->dev, &tile, &unused, err);
            if (rc != QD_OK) return rc;
            qd_nvfp4_decode(t->codes, t->scales, gs, t->n / QD_NVFP4_BLOCK, t->q);
            for (uint32_t k = 0; k < t->n; k++) {
                double d = (double)t->row[k] - (double)t->q[k];
                sum += d * d * (double)t->col_weight[k];
            }
        }
    }
    *ret = n_rows != 0 ? sum * most / (double)n_rows : 0;
    return QD_OK;
}

/* What rounding the inputs costs: mean over tokens and rows. */
static double input_error(trial *t)
{
    const qd_site_sample *x = &t->w->samples[t->site];
    double sum = 0;
    uint32_t n_rows = 0; /* rows that no tile had are zero */
    for (uint32_t i = 0; i < x->n_rows; i++) {
        uint32_t *bits = (uint32_t *)(void *)t->col_weight; /* of one size */
        for (uint32_t k = 0; k < t->n; k++) t->row[k] = x->rows[(uint64_t)i * t->n + k] / t->s[k];
        n_rows += largest(t->row, t->n) > 0.0f;
        memcpy(t->q, t->row, t->n * sizeof *t->q);
        qd_host_block_amax(t->q, t->n / QD_NVFP4_BLOCK, bits);
        float gs = qd_round_scale(bits, t->n / QD_NVFP4_BLOCK);
        if (gs > 0) qd_host_fake_quant(gs, bits, t->q, t->n / QD_NVFP4_BLOCK, t->q);
        for (uint32_t k = 0; k < t->n; k++) {
            double d = ((double)t->row[k] - (double)t->q[k]) * (double)t->s[k];
            sum += d * d * t->weight2[k];
        }
    }
    return n_rows != 0 ? sum / n_rows : 0;
}

qd_code qd_scaling_error(const qd_layer_work *w, uint32_t site, const double *mean2, const double *weight2,
                         const float *s, double *ret, qd_err *err)
{
    uint32_t n = w->sites[site].n_channels;
    trial t = {.w = w, .site = site, .n = n, .mean2 = mean2, .weight2 = weight2, .s = s};
    float *memory = qd_malloc_aligned(64, (size_t)n * 4 * sizeof *memory);
    if (memory == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for scaling");
    t.row = memory;
    t.q = memory + n;
    t.col_weight = memory + 2 * (size_t)n;
    t.codes = (uint8_t *)(memory + 3 * (size_t)n);
    t.scales = t.codes + n / 2;
    qd_code rc = weight_error(&t, ret, err);
    if (rc == QD_OK && w->run->plan->info.input_scales) *ret += input_error(&t);
    qd_free(memory);
    return rc;
}
