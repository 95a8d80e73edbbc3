#include "engine/rounded.h"

#include "base/mem.h"
#include "engine/sites.h"
#include "gpu/num.h"

#include <math.h>

enum {
    PIECE_ELEMS = 1 << 18, /* of one encode call: a few milliseconds */
    AMAX_ELEMS = 1 << 22
};

/* A linear of the layer and how it is rounded. */
typedef struct piece_list {
    qd_weight *w;
    float gs;
    uint64_t first_piece, rows_a_piece; /* pieces are numbered over all linears */
} piece_list;

typedef struct rounding {
    const qd_run *run;
    qd_tasks *tasks;
    piece_list *linears;
    uint32_t n_linears;
    uint64_t n_pieces, codes_each;
    uint8_t *codes; /* [workers][codes_each] */
} rounding;

static qd_code round_rows(const rounding *r, const piece_list *l, uint64_t row, uint64_t n_rows, uint8_t *codes,
                          qd_err *err)
{
    const qd_plan *p = r->run->plan;
    uint64_t n_blocks = n_rows * l->w->k / QD_NVFP4_BLOCK;
    void *at = (unsigned char *)qd_layer_data(l->w) + row * l->w->k * qd_dtype_bytes(l->w->dtype);
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
    if (l->w->dtype == QD_F32)
        qd_nvfp4_decode(codes, scales, l->gs, n_blocks, (float *)at);
    else
        qd_nvfp4_decode_bf16(codes, scales, l->gs, n_blocks, (uint16_t *)at);
    return QD_OK;
}

static qd_code round_piece(void *arg, unsigned worker, uint64_t piece, qd_err *err)
{
    const rounding *r = arg;
    uint32_t i = r->n_linears - 1;
    while (r->linears[i].first_piece > piece) i--;
    const piece_list *l = &r->linears[i];
    const uint64_t row = (piece - l->first_piece) * l->rows_a_piece;
    return round_rows(r, l, row, qd_min_u64(l->rows_a_piece, l->w->n - row), r->codes + worker * r->codes_each, err);
}

/* Raises *amax to the largest magnitude of w. */
static qd_code largest(const rounding *r, const qd_weight *w, const char *name, float *amax, qd_err *err)
{
    uint64_t n = w->n * w->k;
    for (uint64_t i = 0; i < n; i += AMAX_ELEMS) {
        const unsigned char *at = (const unsigned char *)w->data + i * qd_dtype_bytes(w->dtype);
        float a = 0;
        bool finite = true;
        qd_code rc = r->run->dev->ops->amax(r->run->dev, w->dtype, at, qd_min_u64(AMAX_ELEMS, n - i), &a, &finite, err);
        if (rc == QD_OK) rc = qd_tasks_tick(r->tasks, err);
        if (rc != QD_OK) return rc;
        if (!finite) return qd_fail(err, QD_E_INPUT, "%s: expected finite weights, found NaN or infinity", name);
        *amax = fmaxf(*amax, a);
    }
    return QD_OK;
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
            qd_weight *w = qd_layer_weight(layer, it);
            if (w == NULL) return qd_fail(err, QD_E_INTERNAL, "%s: not among the layer's weights", it->name);
            qd_code rc = largest(r, w, it->name, &amax, err);
            if (rc != QD_OK) return rc;
            uint64_t rows = qd_max_u64(1, PIECE_ELEMS / w->k);
            r->linears[r->n_linears++] = (piece_list){.w = w, .first_piece = r->n_pieces, .rows_a_piece = rows};
            r->n_pieces += qd_div_up(w->n, rows);
        }
        for (uint32_t i = first; i < r->n_linears; i++)
            r->linears[i].gs = qd_nvfp4_global(&p->recipe, r->linears[i].w->dtype, amax);
    }
    return QD_OK;
}

qd_code qd_round_weights(const qd_run *run, qd_layer *layer, qd_tasks *tasks, qd_err *err)
{
    qd_code rc = QD_OK;
    rounding r = {.run = run, .tasks = tasks};
    r.linears = qd_calloc(run->plan->n_linears, sizeof *r.linears);
    if (r.linears == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for rounded weights");
        goto out;
    }
    QD_TRY(collect(&r, layer, err));
    for (uint32_t i = 0; i < r.n_linears; i++)
        r.codes_each = qd_max_u64(r.codes_each, r.linears[i].rows_a_piece * r.linears[i].w->k);
    r.codes = qd_malloc(qd_tasks_workers(tasks) * r.codes_each);
    if (r.codes == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for rounded weights");
        goto out;
    }
    rc = qd_tasks_run(tasks, r.n_pieces, round_piece, &r, err);
out:
    qd_free(r.codes);
    qd_free(r.linears);
    return rc;
}

float qd_round_scale(const uint32_t *bits, uint64_t n_blocks)
{
    uint32_t most = 0;
    int e = 0;
    for (uint64_t b = 0; b < n_blocks; b++) most = bits[b] > most ? bits[b] : most;
    if (most == 0 || most >= 0x7f800000u) return 0.0f; /* what is not finite is refused by the statistics */
    /* The largest power of two that keeps 448 * 6 / 2 at or above the largest value. */
    (void)frexpf(1344.0f / qd_bits_f32(most), &e);
    return ldexpf(1.0f, e > 101 ? 100 : e - 1);
}
