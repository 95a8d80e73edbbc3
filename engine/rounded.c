#include "engine/rounded.h"

#include "base/mem.h"
#include "base/pool.h"
#include "engine/sites.h"
#include "gpu/host_blocks.h"
#include "gpu/num.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

enum {
    PIECE_ELEMS = 1 << 18 /* of one encode call: a few milliseconds */
};

/* A linear of the layer and how it is rounded. */
typedef struct piece_list {
    qd_weight *w;
    float gs;
    uint64_t first_piece, rows_a_piece; /* pieces are numbered over all linears */
} piece_list;

typedef struct rounding {
    const qd_run *run;
    piece_list *linears;
    uint32_t n_linears;
    uint64_t n_pieces;
    qd_cancel *cancel;
    pthread_mutex_t lock;
    uint64_t next;
    qd_err err; /* of the first that failed */
} rounding;

static qd_code round_rows(const rounding *r, const piece_list *l, uint64_t row, uint64_t n_rows, uint8_t *codes,
                          float *values, qd_err *err)
{
    const qd_plan *p = r->run->plan;
    uint64_t n_blocks = n_rows * l->w->k / QD_NVFP4_BLOCK;
    unsigned char *at = (unsigned char *)qd_layer_data(l->w) + row * l->w->k * qd_dtype_bytes(l->w->dtype);
    uint8_t *scales = codes + n_blocks * (QD_NVFP4_BLOCK / 2);
    qd_nvfp4_sums sums;
    qd_nvfp4_tile t = {.dtype = (int)l->w->dtype,
                       .rule = p->recipe.rule,
                       .arith = qd_nvfp4_arith_of(&p->recipe, l->w->dtype),
                       .gs = l->gs,
                       .w = at,
                       .blocks_per_row = l->w->k / QD_NVFP4_BLOCK,
                       .n_blocks = n_blocks,
                       .codes = codes,
                       .scales = scales};
    qd_code rc = r->run->dev->ops->nvfp4_encode(r->run->dev, &t, &sums, err);
    if (rc != QD_OK) return rc;
    qd_nvfp4_decode(codes, scales, l->gs, n_blocks, values);
    if (l->w->dtype == QD_F32)
        memcpy(at, values, n_blocks * QD_NVFP4_BLOCK * sizeof *values);
    else
        for (uint64_t i = 0; i < n_blocks * QD_NVFP4_BLOCK; i++) {
            uint16_t h = qd_bf16_from_f32(values[i]);
            memcpy(at + 2 * i, &h, sizeof h);
        }
    return QD_OK;
}

static void fail(rounding *r, const qd_err *err)
{
    (void)pthread_mutex_lock(&r->lock);
    if (r->err.code == QD_OK) r->err = *err;
    r->next = r->n_pieces;
    (void)pthread_mutex_unlock(&r->lock);
}

static void work(void *arg, unsigned worker)
{
    rounding *r = arg;
    uint64_t elems = 0;
    qd_err err = {0};
    (void)worker;
    for (uint32_t i = 0; i < r->n_linears; i++)
        elems = qd_max_u64(elems, r->linears[i].rows_a_piece * r->linears[i].w->k);
    uint8_t *codes = qd_malloc(elems);
    float *values = qd_malloc(elems * sizeof *values);
    if (codes == NULL || values == NULL) {
        (void)qd_fail(&err, QD_E_NO_MEMORY, "out of memory for rounded weights");
        fail(r, &err);
    }
    for (;;) {
        (void)pthread_mutex_lock(&r->lock);
        uint64_t piece = r->next < r->n_pieces ? r->next++ : UINT64_MAX;
        (void)pthread_mutex_unlock(&r->lock);
        if (piece == UINT64_MAX) break;
        uint32_t i = r->n_linears - 1;
        while (r->linears[i].first_piece > piece) i--;
        const piece_list *l = &r->linears[i];
        uint64_t row = (piece - l->first_piece) * l->rows_a_piece;
        qd_code rc = qd_cancel_asked(r->cancel)
                         ? qd_fail(&err, QD_E_CANCELED, "canceled")
                         : round_rows(r, l, row, qd_min_u64(l->rows_a_piece, l->w->n - row), codes, values, &err);
        if (rc != QD_OK) fail(r, &err);
    }
    qd_free(codes);
    qd_free(values);
}

/* The layer's linears with the global scale of their set, as the plan's units have it. */
static qd_code collect(rounding *r, qd_layer *layer, qd_err *err)
{
    const qd_plan *p = r->run->plan;
    for (uint32_t u = 0; u < p->n_units; u++) {
        const qd_unit *unit = &p->units[u];
        float amax = 0;
        uint32_t first = r->n_linears;
        if (unit->kind != QD_UNIT_QUANTIZE || unit->layer != (int32_t)layer->number) continue;
        for (uint32_t i = unit->first_item; i < unit->first_item + unit->n_items; i++) {
            const qd_item *it = &p->items[i];
            float a = 0;
            bool finite = true;
            qd_weight *w = qd_layer_weight(layer, it);
            if (w == NULL) return qd_fail(err, QD_E_INTERNAL, "%s: not among the layer's weights", it->name);
            qd_code rc = r->run->dev->ops->amax(r->run->dev, w->dtype, w->data, w->n * w->k, &a, &finite, err);
            if (rc != QD_OK) return rc;
            if (!finite)
                return qd_fail(err, QD_E_INPUT, "%s: expected finite weights, found NaN or infinity", it->name);
            if (qd_cancel_asked(r->cancel)) return qd_fail(err, QD_E_CANCELED, "canceled");
            amax = fmaxf(amax, a);
            uint64_t rows = qd_max_u64(1, PIECE_ELEMS / w->k);
            r->linears[r->n_linears++] = (piece_list){.w = w, .first_piece = r->n_pieces, .rows_a_piece = rows};
            r->n_pieces += qd_div_up(w->n, rows);
        }
        for (uint32_t i = first; i < r->n_linears; i++)
            r->linears[i].gs = qd_nvfp4_global(&p->recipe, r->linears[i].w->dtype, amax);
    }
    return QD_OK;
}

qd_code qd_round_weights(const qd_run *run, qd_layer *layer, unsigned n_threads, qd_cancel *cancel, qd_err *err)
{
    qd_code rc = QD_OK;
    qd_pool *pool = NULL;
    rounding r = {.run = run, .cancel = cancel};
    (void)pthread_mutex_init(&r.lock, NULL);
    r.linears = qd_calloc(run->plan->n_linears, sizeof *r.linears);
    if (r.linears == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for rounded weights");
        goto out;
    }
    QD_TRY(collect(&r, layer, err));
    if (r.n_pieces == 0) goto out;
    QD_TRY(qd_pool_start(n_threads, "qd-round", work, &r, &pool, err));
    qd_pool_join(pool);
    if (r.err.code != QD_OK) {
        rc = r.err.code;
        if (err != NULL) *err = r.err;
    }
out:
    qd_free(r.linears);
    (void)pthread_mutex_destroy(&r.lock);
    return rc;
}

void qd_round_activations(float *x, const uint32_t *bits, uint64_t n_blocks)
{
    uint32_t most = 0;
    int e = 0;
    for (uint64_t b = 0; b < n_blocks; b++)
        if (bits[b] > most) most = bits[b];
    if (most == 0 || most >= 0x7f800000u) return; /* what is not finite is refused by the statistics */
    /* The largest power of two that keeps 448 * 6 / 2 at or above the largest value. */
    (void)frexpf(1344.0f / qd_bits_f32(most), &e);
    qd_host_fake_quant(ldexpf(1.0f, e > 101 ? 100 : e - 1), bits, x, n_blocks);
}
