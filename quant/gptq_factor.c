/* gptq_factor.c -- from a Hessian to the order of its columns and the factor of the damped matrix. */
#include "base/mem.h"
#include "quant/cholesky.h"
#include "quant/gptq.h"
#include "quant/gptq_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct place {
    double value;
    uint32_t number;
} place;

/* Ascending, since what comes last is quantized first; of equal ones the higher number comes first. */
static int by_value(const void *a, const void *b)
{
    const place *x = a, *y = b;
    if (x->value < y->value || x->value > y->value) return x->value < y->value ? -1 : 1;
    return x->number > y->number ? -1 : 1;
}

qd_code qd_gptq_order(const float *diagonal, uint64_t n, uint32_t *ret, qd_err *err)
{
    uint64_t n_blocks = n / QD_NVFP4_BLOCK;
    place *block = qd_calloc(n_blocks, sizeof *block), col[QD_NVFP4_BLOCK];
    if (block == NULL)
        return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the order of %llu columns", (unsigned long long)n);
    for (uint64_t b = 0; b < n_blocks; b++) {
        block[b].number = (uint32_t)b;
        for (uint64_t i = 0; i < QD_NVFP4_BLOCK; i++) block[b].value += (double)diagonal[b * QD_NVFP4_BLOCK + i];
    }
    qsort(block, n_blocks, sizeof *block, by_value);
    for (uint64_t b = 0; b < n_blocks; b++) {
        for (uint32_t i = 0; i < QD_NVFP4_BLOCK; i++) {
            uint32_t k = block[b].number * QD_NVFP4_BLOCK + i;
            col[i] = (place){(double)diagonal[k], k};
        }
        qsort(col, QD_NVFP4_BLOCK, sizeof *col, by_value);
        for (uint64_t i = 0; i < QD_NVFP4_BLOCK; i++) ret[b * QD_NVFP4_BLOCK + i] = col[i].number;
    }
    qd_free(block);
    return QD_OK;
}

typedef struct filling {
    const void *hessian;
    qd_hessian_at at;
    const qd_gptq_factor *f;
} filling;

static qd_code fill_row(void *arg, unsigned worker, uint64_t i, qd_err *err)
{
    const filling *c = arg;
    const uint32_t *order = c->f->order;
    float *row = c->f->l + i * c->f->n;
    (void)worker;
    (void)err;
    for (uint64_t j = 0; j <= i; j++) {
        uint32_t a = order[i], b = order[j];
        row[j] = a > b ? c->at(c->hessian, a, b) : c->at(c->hessian, b, a);
    }
    row[i] += c->f->damp;
    return QD_OK;
}

qd_code qd_gptq_factor_make(qd_tasks *tasks, qd_lane *lanes, const void *hessian, qd_hessian_at at, uint64_t n,
                            float damp, qd_gptq_factor *ret, bool *ret_ok, qd_err *err)
{
    qd_gptq_factor f = {.n = n};
    float *diagonal = qd_malloc(n * sizeof *diagonal);
    double sum = 0;
    qd_code rc = QD_OK;
    *ret_ok = false;
    f.order = qd_malloc(n * sizeof *f.order);
    f.l = qd_malloc_aligned(64, n * n * sizeof *f.l);
    if (diagonal == NULL || f.order == NULL || f.l == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a Hessian of %llu columns", (unsigned long long)n);
        goto out;
    }
    for (uint64_t i = 0; i < n; i++) {
        diagonal[i] = at(hessian, i, i);
        sum += (double)diagonal[i];
    }
    if (!(sum > 0) || !isfinite(sum)) goto out;
    QD_TRY(qd_gptq_order(diagonal, n, f.order, err));
    for (int i = 0; i < QD_GPTQ_DAMP_TRIES && !*ret_ok; i++, damp *= QD_GPTQ_DAMP_STEP) {
        f.damp = (float)((double)damp * sum / (double)n);
        filling c = {hessian, at, &f};
        QD_TRY(qd_tasks_run(tasks, n, fill_row, &c, err));
        QD_TRY(qd_cholesky(tasks, lanes, f.l, n, ret_ok, err));
    }
    if (!*ret_ok) goto out;
    *ret = f;
    memset(&f, 0, sizeof f); /* ownership moved */
out:
    qd_free(diagonal);
    qd_gptq_factor_done(&f);
    return rc;
}

void qd_gptq_factor_done(qd_gptq_factor *f)
{
    if (f == NULL) return;
    if (f->ops != NULL) {
        const qd_memory *m = f->ops->memory;
        if (f->l != NULL) m->give(m->ctx, f->l, f->n * f->n * sizeof *f->l);
        if (f->order_there != NULL) m->give(m->ctx, f->order_there, f->n * sizeof *f->order_there);
    } else {
        qd_free(f->l);
    }
    qd_free(f->order);
    memset(f, 0, sizeof *f);
}
