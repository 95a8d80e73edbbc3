/* group.c -- the linears that read one input, in chunks of rows: measured, quantized, written. Rows do not depend on
 * each other, so chunks are done in any order by any thread. */
#include "base/mem.h"
#include "engine/layer_work.h"
#include "engine/tile.h"
#include "gpu/kernels.h"

#include <math.h>
#include <string.h>

enum {
    CHUNK_ROWS = 128,
    B = QD_NVFP4_BLOCK
};

typedef struct chunk {
    uint32_t item, tile; /* of the plan */
    uint64_t row, n;     /* of the item */
    float amax;
    qd_nvfp4_sums sums;
    double loss, loss_rtn; /* of GPTQ */
    uint32_t rank;         /* who does it */
} chunk;

/* What one thread works in. */
typedef struct bench {
    float *w, *q, *scratch; /* rows; what they decode to; of GPTQ */
    uint8_t *codes, *scales;
} bench;

typedef struct group {
    qd_layer_work *work;
    uint32_t site;
    const qd_gptq_factor *factor; /* NULL: to nearest */
    const float *col_weight;      /* of the scale search; may be NULL */
    chunk *chunks;
    uint64_t n_chunks;
    uint64_t first, end;       /* chunks of this rank */
    uint8_t **codes, **scales; /* [items of the site] */
    bench *benches;
    qd_lane *lanes;
} group;

static const qd_item *item_at(const group *g, uint32_t item)
{
    return &g->work->run->plan->items[item];
}

static uint64_t number_in_site(const group *g, uint32_t item)
{
    const qd_input_site *s = &g->work->sites[g->site];
    uint64_t i = 0;
    while (s->items[i] != item) i++;
    return i;
}

static qd_code measure(void *arg, unsigned worker, uint64_t task, qd_err *err)
{
    group *g = arg;
    chunk *c = &g->chunks[g->first + task];
    float *w = g->benches[worker].w, most = 0;
    qd_code rc = qd_work_rows(g->work, g->site, c->item, c->row, c->n, w, err);
    for (uint64_t i = 0; rc == QD_OK && i < c->n * item_at(g, c->item)->cols; i++) most = fmaxf(most, fabsf(w[i]));
    c->amax = most;
    return rc;
}

static qd_code to_nearest(const group *g, const chunk *c, const bench *b, float gs, uint8_t *codes, uint8_t *scales,
                          qd_err *err)
{
    const qd_run *run = g->work->run;
    uint64_t per_row = item_at(g, c->item)->cols / B;
    qd_nvfp4_sums unused;
    qd_nvfp4_tile t = {.dtype = (int)QD_F32,
                       .rule = run->plan->recipe.rule,
                       .arith = QD_ARITH_FP32,
                       .gs = gs,
                       .w = b->w,
                       .col_weight = g->col_weight,
                       .blocks_per_row = per_row,
                       .n_blocks = c->n * per_row,
                       .codes = codes,
                       .scales = scales};
    return run->dev->ops->nvfp4_encode(run->dev, &t, &unused, err);
}

/* Both ways; each row takes the one whose output is nearer. */
static qd_code by_gptq(group *g, chunk *c, unsigned worker, float gs, uint8_t *codes, uint8_t *scales, qd_err *err)
{
    bench *b = &g->benches[worker];
    uint64_t cols = item_at(g, c->item)->cols;
    double loss[CHUNK_ROWS], rtn[CHUNK_ROWS];
    qd_code rc = to_nearest(g, c, b, gs, b->codes, b->scales, err);
    if (rc != QD_OK) return rc;
    qd_nvfp4_decode(b->codes, b->scales, gs, c->n * (cols / B), b->q);
    rc = qd_gptq_loss(&g->lanes[worker], g->factor, b->w, b->q, c->n, gs, b->scratch, rtn, err);
    if (rc == QD_OK)
        rc = qd_gptq_rows(&g->lanes[worker], g->factor, b->w, c->n, gs, b->scratch, codes, scales, loss, err);
    for (uint32_t i = 0; rc == QD_OK && i < g->work->run->plan->method.refine; i++)
        rc = qd_gptq_refine(&g->lanes[worker], g->factor, c->n, b->scratch, codes, scales, loss, err);
    for (uint64_t r = 0; rc == QD_OK && r < c->n; r++) {
        if (!(loss[r] <= rtn[r])) {
            memcpy(codes + r * (cols / 2), b->codes + r * (cols / 2), cols / 2);
            memcpy(scales + r * (cols / B), b->scales + r * (cols / B), cols / B);
            loss[r] = rtn[r];
        }
        c->loss += loss[r] / ((double)gs * (double)gs);
        c->loss_rtn += rtn[r] / ((double)gs * (double)gs);
    }
    return rc;
}

/* Sums of the chunk over its blocks, in order. */
static void sum_up(chunk *c, const float *w, const float *q, const uint8_t *codes, const uint8_t *scales, float gs,
                   uint64_t n_blocks)
{
    c->sums = (qd_nvfp4_sums){0};
    for (uint64_t b = 0; b < n_blocks; b++) {
        float err2 = 0, w2 = 0, most = 0;
        unsigned used = 0;
        for (uint64_t i = b * B; i < (b + 1) * B; i++) {
            float x = w[i] * gs, d = (w[i] - q[i]) * gs;
            err2 += d * d;
            w2 += x * x;
            most = fmaxf(most, fabsf(x));
        }
        for (uint64_t i = b * (B / 2); i < (b + 1) * (B / 2); i++) used |= codes[i] & 0x77u;
        c->sums.err2 += (double)err2;
        c->sums.w2 += (double)w2;
        c->sums.n_zero += used == 0;
        c->sums.n_clipped += most > 6.0f * qd_e4m3_to_f32(scales[b]);
    }
}

static uint8_t *codes_of(const group *g, const chunk *c)
{
    return g->codes[number_in_site(g, c->item)] + c->row * (item_at(g, c->item)->cols / 2);
}

static uint8_t *scales_of(const group *g, const chunk *c)
{
    return g->scales[number_in_site(g, c->item)] + c->row * (item_at(g, c->item)->cols / B);
}

/* What the chunk's codes mean takes the place of its weights. b->q holds it, too. */
static void decode_into_layer(const group *g, const chunk *c, const bench *b)
{
    const uint64_t cols = item_at(g, c->item)->cols;
    qd_weight *x = qd_work_weight(g->work, c->item);
    qd_nvfp4_decode(codes_of(g, c), scales_of(g, c), g->work->run->result[c->item].gs, c->n * cols / B, b->q);
    g->work->layer->ops->store(x->dtype, b->q, c->n * cols,
                               (unsigned char *)qd_layer_data(x) + c->row * cols * qd_dtype_bytes(x->dtype));
}

static qd_code quantize(void *arg, unsigned worker, uint64_t task, qd_err *err)
{
    group *g = arg;
    chunk *c = &g->chunks[g->first + task];
    const qd_item *it = item_at(g, c->item);
    bench *b = &g->benches[worker];
    uint8_t *codes = codes_of(g, c), *scales = scales_of(g, c);
    float gs = g->work->run->result[c->item].gs;
    qd_code rc = qd_work_rows(g->work, g->site, c->item, c->row, c->n, b->w, err);
    if (rc == QD_OK)
        rc = g->factor != NULL ? by_gptq(g, c, worker, gs, codes, scales, err)
                               : to_nearest(g, c, b, gs, codes, scales, err);
    if (rc != QD_OK) return rc;
    decode_into_layer(g, c, b);
    sum_up(c, b->w, b->q, codes, scales, gs, c->n * it->cols / B);
    return QD_OK;
}

/* A chunk of another rank, once it is here. */
static qd_code place(void *arg, unsigned worker, uint64_t task, qd_err *err)
{
    group *g = arg;
    (void)err;
    decode_into_layer(g, &g->chunks[task < g->first ? task : g->end + (task - g->first)], &g->benches[worker]);
    return QD_OK;
}

/* Chunks of all linears, none across two tiles; memory of each worker and of the results. */
static qd_code set_up(group *g, unsigned n_workers, qd_err *err)
{
    const qd_plan *p = g->work->run->plan;
    const qd_input_site *s = &g->work->sites[g->site];
    uint64_t n = 0, elems = (uint64_t)CHUNK_ROWS * s->n_channels;
    uint64_t scratch = g->factor != NULL ? qd_gptq_scratch(g->factor, CHUNK_ROWS) : 1;
    for (uint32_t i = 0; i < s->n_items; i++)
        n += p->items[s->items[i]].n_tiles + p->items[s->items[i]].rows / CHUNK_ROWS;
    g->chunks = qd_calloc(n, sizeof *g->chunks);
    g->codes = qd_calloc(s->n_items, sizeof *g->codes);
    g->scales = qd_calloc(s->n_items, sizeof *g->scales);
    g->benches = qd_calloc(n_workers, sizeof *g->benches);
    bool ok = g->chunks != NULL && g->codes != NULL && g->scales != NULL && g->benches != NULL;
    for (unsigned i = 0; ok && i < n_workers; i++) {
        bench *b = &g->benches[i];
        b->w = qd_malloc_aligned(64, elems * sizeof *b->w);
        b->q = qd_malloc_aligned(64, elems * sizeof *b->q);
        b->scratch = qd_malloc_aligned(64, scratch * sizeof *b->scratch);
        b->codes = qd_malloc(elems / 2);
        b->scales = qd_malloc(elems / B);
        ok = b->w != NULL && b->q != NULL && b->scratch != NULL && b->codes != NULL && b->scales != NULL;
    }
    for (uint32_t i = 0; ok && i < s->n_items; i++) {
        const qd_item *it = &p->items[s->items[i]];
        g->codes[i] = qd_malloc(it->rows * it->cols / 2);
        g->scales[i] = qd_malloc(it->rows * it->cols / B);
        ok = g->codes[i] != NULL && g->scales[i] != NULL;
        for (uint32_t t = it->first_tile; t < it->first_tile + it->n_tiles; t++) {
            qd_tile tile = qd_plan_tile(p, t);
            for (uint64_t r = 0; r < tile.n_rows; r += CHUNK_ROWS)
                g->chunks[g->n_chunks++] = (chunk){
                    .item = s->items[i], .tile = t, .row = tile.row + r, .n = qd_min_u64(CHUNK_ROWS, tile.n_rows - r)};
        }
    }
    return ok ? QD_OK : qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for its weights", p->items[s->items[0]].name);
}

/* Even parts of all rows, in the order of ranks. */
static void share_out(group *g)
{
    const qd_gang *gang = g->work->run->gang;
    const uint32_t n_ranks = qd_gang_size(gang), rank = qd_gang_rank(gang);
    uint64_t rows = 0, before = 0;
    for (uint64_t i = 0; i < g->n_chunks; i++) rows += g->chunks[i].n;
    for (uint64_t i = 0; i < g->n_chunks; before += g->chunks[i++].n) {
        chunk *c = &g->chunks[i];
        c->rank = (uint32_t)((before + c->n / 2) * n_ranks / rows);
        g->first += c->rank < rank;
        g->end += c->rank <= rank;
    }
}

/* Largest weights of chunks that other ranks have looked at. */
static qd_code join_amaxes(const group *g, qd_err *err)
{
    float *all = qd_malloc((g->n_chunks + 1) * sizeof *all);
    if (all == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the largest weights");
    for (uint64_t i = 0; i < g->n_chunks; i++) all[i] = g->chunks[i].amax;
    qd_code rc = qd_gang_max_f32(g->work->run->gang, all, g->n_chunks, err);
    for (uint64_t i = 0; rc == QD_OK && i < g->n_chunks; i++) g->chunks[i].amax = all[i];
    qd_free(all);
    return rc;
}

/* Between a chunk and its place in what goes over: its figures, codes, scales. Returns the place behind it. */
static uint8_t *move_chunk(const group *g, chunk *c, bool out, uint8_t *at)
{
    const uint64_t cols = item_at(g, c->item)->cols;
    void *const parts[] = {c, codes_of(g, c), scales_of(g, c)};
    const uint64_t bytes[] = {sizeof *c, c->n * (cols / 2), c->n * (cols / B)};
    for (size_t i = 0; at != NULL && i < sizeof parts / sizeof parts[0]; at += bytes[i++])
        memcpy(out ? at : parts[i], out ? parts[i] : at, bytes[i]);
    return at;
}

/* Every rank gets the codes of all. */
static qd_code join_codes(group *g, qd_tasks *tasks, qd_err *err)
{
    qd_gang *gang = g->work->run->gang;
    const uint32_t n_ranks = qd_gang_size(gang), rank = qd_gang_rank(gang);
    uint64_t bytes[QD_COMM_RANKS_MAX] = {0}, most = 0;
    qd_code rc = QD_OK;
    if (n_ranks == 1) return QD_OK;
    for (uint64_t i = 0; i < g->n_chunks; i++) {
        const chunk *c = &g->chunks[i];
        const uint64_t cols = item_at(g, c->item)->cols;
        bytes[c->rank] += sizeof *c + c->n * (cols / 2 + cols / B);
        most = qd_max_u64(most, bytes[c->rank]);
    }
    uint8_t *all = qd_malloc(n_ranks * most), *at = all != NULL ? all + rank * most : NULL;
    if (all == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for codes");
    for (uint64_t i = g->first; i < g->end; i++) at = move_chunk(g, &g->chunks[i], true, at);
    memset(at, 0, most - bytes[rank]);
    QD_TRY(qd_gang_gather(gang, all + rank * most, most, all, err));
    for (uint32_t r = 0; r < n_ranks; r++) {
        at = all + r * most;
        for (uint64_t i = 0; i < g->n_chunks; i++)
            if (g->chunks[i].rank == r) at = move_chunk(g, &g->chunks[i], false, at);
    }
    QD_TRY(qd_tasks_run(tasks, g->n_chunks - (g->end - g->first), place, g, err));
out:
    qd_free(all);
    return rc;
}

static void tear_down(group *g, unsigned n_workers)
{
    for (unsigned i = 0; g->benches != NULL && i < n_workers; i++) {
        bench *b = &g->benches[i];
        qd_free(b->w);
        qd_free(b->q);
        qd_free(b->scratch);
        qd_free(b->codes);
        qd_free(b->scales);
    }
    for (uint32_t i = 0; i < g->work->sites[g->site].n_items; i++) {
        if (g->codes != NULL) qd_free(g->codes[i]);
        if (g->scales != NULL) qd_free(g->scales[i]);
    }
    qd_free(g->benches);
    qd_free(g->chunks);
    qd_free(g->codes);
    qd_free(g->scales);
}

/* The global scale of each unit of the site, from its linears' largest weights. */
static void scales_of_units(group *g)
{
    qd_run *run = g->work->run;
    const qd_input_site *s = &g->work->sites[g->site];
    for (uint32_t i = 0; i < s->n_items; i++) run->result[s->items[i]].amax = 0;
    for (uint64_t c = 0; c < g->n_chunks; c++) {
        float *a = &run->result[g->chunks[c].item].amax;
        *a = fmaxf(*a, g->chunks[c].amax);
    }
    for (uint32_t i = 0; i < s->n_items; i++) {
        const qd_unit *u = &run->plan->units[run->plan->items[s->items[i]].unit];
        float all = 0;
        for (uint32_t k = u->first_item; k < u->first_item + u->n_items; k++) all = fmaxf(all, run->result[k].amax);
        run->result[s->items[i]].gs = qd_nvfp4_global(&run->plan->recipe, QD_F32, all);
    }
}

static qd_code write_item(const group *g, uint32_t item, qd_err *err)
{
    qd_run *run = g->work->run;
    const qd_item *it = item_at(g, item);
    uint64_t at = number_in_site(g, item);
    for (uint32_t t = it->first_tile; t < it->first_tile + it->n_tiles; t++) {
        qd_tile tile = qd_plan_tile(run->plan, t);
        qd_extent c = qd_plan_extent(run->plan, &tile, QD_PART_CODES), s;
        s = qd_plan_extent(run->plan, &tile, QD_PART_SCALES);
        const uint8_t *codes = g->codes[at] + tile.row * (it->cols / 2);
        const uint8_t *scales = g->scales[at] + tile.row * (it->cols / B);
        run->tile_hash[t] = (qd_tile_hash){{qd_hash(codes, c.bytes), qd_hash(scales, s.bytes)}};
        qd_code rc = qd_sink_put(run->sink, run->sink_part[c.part], c.off, codes, c.bytes, err);
        if (rc == QD_OK) rc = qd_sink_put(run->sink, run->sink_part[s.part], s.off, scales, s.bytes, err);
        if (rc == QD_OK) rc = qd_work_tick(g->work, err);
        if (rc != QD_OK) return rc;
    }
    return QD_OK;
}

static qd_code close_unit(qd_layer_work *w, uint32_t unit, qd_err *err)
{
    qd_code rc = qd_unit_close(w->run, w->journal, unit, err);
    if (rc == QD_OK) w->run->unit_done[unit] = true;
    return rc;
}

static qd_code write_all(group *g, qd_err *err)
{
    qd_run *run = g->work->run;
    const qd_input_site *s = &g->work->sites[g->site];
    qd_code rc = QD_OK;
    for (uint64_t i = 0; i < g->n_chunks; i++) {
        const chunk *c = &g->chunks[i];
        qd_nvfp4_sums *t = &run->tile_sums[c->tile];
        if (c->row == qd_plan_tile(run->plan, c->tile).row) *t = (qd_nvfp4_sums){0};
        t->err2 += c->sums.err2;
        t->w2 += c->sums.w2;
        t->n_clipped += c->sums.n_clipped;
        t->n_zero += c->sums.n_zero;
        g->work->loss += c->loss;
        g->work->loss_rtn += c->loss_rtn;
    }
    for (uint32_t i = 0; i < s->n_items; i++) QD_TRY(write_item(g, s->items[i], err));
    for (uint32_t i = 0; i < s->n_items; i++) {
        uint32_t unit = run->plan->items[s->items[i]].unit;
        if (run->plan->units[unit].first_item == s->items[i]) QD_TRY(close_unit(g->work, unit, err));
    }
out:
    return rc;
}

/* Second moments of the inputs as they are after scaling, the largest made 1: weights of the scale search. */
static qd_code col_weights(const qd_layer_work *w, uint32_t site, float **ret, qd_err *err)
{
    uint32_t n = w->sites[site].n_channels;
    double *m = qd_malloc(n * sizeof *m), most = 0;
    float *c = qd_malloc(n * sizeof *c);
    *ret = NULL;
    if (m == NULL || c == NULL) {
        qd_free(m);
        qd_free(c);
        return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the moments of an input");
    }
    qd_work_moments(w, site, m);
    for (uint32_t k = 0; k < n; k++) {
        if (w->col[site] != NULL) m[k] /= (double)w->col[site][k] * (double)w->col[site][k];
        most = fmax(most, m[k]);
    }
    /* Not quite zero for channels that were never used: other data may use them. */
    for (uint32_t k = 0; k < n; k++) c[k] = most > 0 ? (float)fmax(m[k] / most, 1e-9) : 1.0f;
    qd_free(m);
    *ret = c;
    return QD_OK;
}

qd_code qd_group_quantize(qd_layer_work *w, uint32_t site, const qd_gptq_factor *factor, qd_tasks *tasks,
                          qd_lane *lanes, qd_err *err)
{
    group g = {.work = w, .site = site, .factor = factor, .lanes = lanes};
    float *col_weight = NULL;
    qd_code rc = QD_OK;
    if (w->run->plan->method.hessian_scale) QD_TRY(col_weights(w, site, &col_weight, err));
    g.col_weight = col_weight;
    QD_TRY(set_up(&g, tasks->n_threads, err));
    share_out(&g);
    QD_TRY(qd_tasks_run(tasks, g.end - g.first, measure, &g, err));
    QD_TRY(join_amaxes(&g, err));
    scales_of_units(&g);
    QD_TRY(qd_tasks_run(tasks, g.end - g.first, quantize, &g, err));
    QD_TRY(join_codes(&g, tasks, err));
    QD_TRY(write_all(&g, err));
out:
    tear_down(&g, tasks->n_threads);
    qd_free(col_weight);
    return rc;
}

qd_code qd_changed_write(qd_layer_work *w, qd_err *err)
{
    const qd_plan *p = w->run->plan;
    qd_code rc = QD_OK;
    for (uint32_t i = 0; i < w->n_changed; i++) {
        const qd_item *it = &p->items[w->changed[i].item];
        for (uint32_t t = it->first_tile; t < it->first_tile + it->n_tiles; t++) {
            qd_tile tile = qd_plan_tile(p, t);
            qd_extent x = qd_plan_extent(p, &tile, QD_PART_CODES);
            const unsigned char *data = w->changed[i].data + tile.row;
            w->run->tile_hash[t] = (qd_tile_hash){{qd_hash(data, x.bytes), {0, 0}}};
            QD_TRY(qd_sink_put(w->run->sink, w->run->sink_part[x.part], x.off, data, x.bytes, err));
        }
        QD_TRY(close_unit(w, it->unit, err));
    }
out:
    return rc;
}
