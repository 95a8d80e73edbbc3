/* group.c -- the linears that read one input, in chunks of rows: measured, quantized, written. Rows do not depend on
 * each other, so chunks are done in any order by any thread. */
#include "base/mem.h"
#include "engine/group_inside.h"
#include "engine/tile.h"
#include "gpu/kernels.h"

#include <math.h>
#include <string.h>

enum {
    B = QD_NVFP4_BLOCK,
    CORRECT_COLS = 768 /* of a piece of a correction's product */
};

static uint64_t number_in_site(const qd_group *g, uint32_t item)
{
    const qd_input_site *s = &g->work->sites[g->site];
    uint64_t i = 0;
    while (s->items[i] != item) i++;
    return i;
}

static qd_code measure(void *arg, unsigned worker, uint64_t task, qd_err *err)
{
    qd_group *g = arg;
    qd_chunk *c = &g->chunks[g->first + task];
    float *w = g->benches[worker].w, most = 0;
    qd_code rc = qd_work_rows(g->work, g->site, c->item, c->row, c->n, w, err);
    for (uint64_t i = 0; rc == QD_OK && i < c->n * qd_group_item(g, c->item)->cols; i++)
        most = fmaxf(most, fabsf(w[i]));
    c->amax = most;
    return rc;
}

static qd_code to_nearest(const qd_group *g, const qd_chunk *c, const qd_bench *b, float gs, uint8_t *codes,
                          uint8_t *scales, qd_err *err)
{
    const qd_run *run = g->work->run;
    uint64_t per_row = qd_group_item(g, c->item)->cols / B;
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

/* Codes of a chunk by GPTQ, their losses, and those of what rounding to nearest gives (b->q). */
static qd_code solve(qd_group *g, const qd_chunk *c, unsigned worker, float gs, uint8_t *codes, uint8_t *scales,
                     qd_err *err)
{
    qd_bench *b = &g->benches[worker];
    qd_lane *lane = &g->lanes[worker];
    double *loss = b->loss, *rtn = b->loss + g->chunk_rows;
    qd_code rc = qd_gptq_loss(lane, g->factor, b->w, b->q, c->n, gs, b->scratch, rtn, err);
    if (rc == QD_OK) rc = qd_gptq_rows(lane, g->factor, b->w, c->n, gs, b->scratch, codes, scales, loss, err);
    for (uint32_t i = 0; rc == QD_OK && i < g->work->run->plan->method.refine; i++)
        rc = qd_gptq_refine(lane, g->factor, c->n, b->scratch, codes, scales, loss, err);
    return rc;
}

/* The same on a device, whose lanes are fewer than workers. */
static qd_code solve_there(qd_group *g, const qd_chunk *c, unsigned worker, float gs, uint8_t *codes, uint8_t *scales,
                           qd_err *err)
{
    qd_bench *b = &g->benches[worker];
    const unsigned at = worker % g->work->n_lanes;
    (void)pthread_mutex_lock(&g->work->lane_locks[at]);
    qd_code rc = qd_gptq_rows_there(&g->lanes[at], g->factor, b->w, b->q, c->n, gs, codes, scales, b->loss,
                                    b->loss + g->chunk_rows, err);
    (void)pthread_mutex_unlock(&g->work->lane_locks[at]);
    return rc;
}

/* Both ways; each row takes the one whose output is nearer. */
static qd_code by_gptq(qd_group *g, qd_chunk *c, unsigned worker, float gs, uint8_t *codes, uint8_t *scales,
                       qd_err *err)
{
    qd_bench *b = &g->benches[worker];
    uint64_t cols = qd_group_item(g, c->item)->cols;
    double *loss = b->loss, *rtn = b->loss + g->chunk_rows;
    qd_code rc = to_nearest(g, c, b, gs, b->codes, b->scales, err);
    if (rc != QD_OK) return rc;
    qd_nvfp4_decode(b->codes, b->scales, gs, c->n * (cols / B), b->q);
    rc = g->factor->ops != NULL ? solve_there(g, c, worker, gs, codes, scales, err)
                                : solve(g, c, worker, gs, codes, scales, err);
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
static void sum_up(qd_chunk *c, const float *w, const float *q, const uint8_t *codes, const uint8_t *scales, float gs,
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

uint8_t *qd_group_codes(const qd_group *g, const qd_chunk *c)
{
    return g->codes[number_in_site(g, c->item)] + c->row * (qd_group_item(g, c->item)->cols / 2);
}

uint8_t *qd_group_scales(const qd_group *g, const qd_chunk *c)
{
    return g->scales[number_in_site(g, c->item)] + c->row * (qd_group_item(g, c->item)->cols / B);
}

void qd_group_decode(const qd_group *g, const qd_chunk *c, const qd_bench *b)
{
    const uint64_t cols = qd_group_item(g, c->item)->cols;
    qd_weight *x = qd_work_weight(g->work, c->item);
    qd_nvfp4_decode(qd_group_codes(g, c), qd_group_scales(g, c), g->work->run->result[c->item].gs, c->n * cols / B,
                    b->q);
    g->work->layer->ops->store(x->dtype, b->q, c->n * cols,
                               (unsigned char *)qd_layer_data(x) + c->row * cols * qd_dtype_bytes(x->dtype));
}

/* b->w += b->w * correction; its global scale stays, which has room above the largest weight. */
static qd_code correct(const qd_group *g, const qd_chunk *c, unsigned worker, const qd_bench *b, qd_err *err)
{
    const uint64_t n = qd_group_item(g, c->item)->cols;
    qd_lane *lane = &g->lanes[worker];
    for (uint64_t p = 0; p < n; p += CORRECT_COLS) {
        qd_code rc = lane->ops->gemm(lane, false, c->n, qd_min_u64(CORRECT_COLS, n - p), n, b->w, n, g->correction + p,
                                     n, false, b->q + p, n, err);
        if (rc == QD_OK) rc = qd_lane_tick(lane, err);
        if (rc != QD_OK) return rc;
    }
    for (uint64_t i = 0; i < c->n * n; i++) b->w[i] += b->q[i];
    return QD_OK;
}

static qd_code quantize(void *arg, unsigned worker, uint64_t task, qd_err *err)
{
    qd_group *g = arg;
    qd_chunk *c = &g->chunks[g->first + task];
    const qd_item *it = qd_group_item(g, c->item);
    qd_bench *b = &g->benches[worker];
    uint8_t *codes = qd_group_codes(g, c), *scales = qd_group_scales(g, c);
    float gs = g->work->run->result[c->item].gs;
    qd_code rc = qd_work_rows(g->work, g->site, c->item, c->row, c->n, b->w, err);
    if (rc == QD_OK && g->correction != NULL) rc = correct(g, c, worker, b, err);
    if (rc == QD_OK)
        rc = g->factor != NULL ? by_gptq(g, c, worker, gs, codes, scales, err)
                               : to_nearest(g, c, b, gs, codes, scales, err);
    if (rc != QD_OK) return rc;
    qd_group_decode(g, c, b);
    sum_up(c, b->w, b->q, codes, scales, gs, c->n * it->cols / B);
    return QD_OK;
}

/* Chunks of all linears, none across two tiles; memory of each worker and of the results. */
qd_code qd_group_open(qd_group *g, unsigned n_workers, qd_err *err)
{
    const qd_plan *p = g->work->run->plan;
    const qd_input_site *s = &g->work->sites[g->site];
    const bool there = p->method.gptq && !g->work->layer->ops->on_host; /* whoever has the factor: ranks agree */
    g->chunk_rows = there ? QD_CHUNK_ROWS_THERE : QD_CHUNK_ROWS;
    uint64_t n = 0, elems = g->chunk_rows * s->n_channels;
    uint64_t scratch = g->factor != NULL && !there ? qd_gptq_scratch(g->factor, QD_CHUNK_ROWS) : 1;
    for (uint32_t i = 0; i < s->n_items; i++)
        n += p->items[s->items[i]].n_tiles + p->items[s->items[i]].rows / g->chunk_rows;
    g->chunks = qd_calloc(n, sizeof *g->chunks);
    g->codes = qd_calloc(s->n_items, sizeof *g->codes);
    g->scales = qd_calloc(s->n_items, sizeof *g->scales);
    g->benches = qd_calloc(n_workers, sizeof *g->benches);
    g->n_workers = n_workers;
    bool ok = g->chunks != NULL && g->codes != NULL && g->scales != NULL && g->benches != NULL;
    for (unsigned i = 0; ok && i < n_workers; i++) {
        qd_bench *b = &g->benches[i];
        b->w = qd_malloc_aligned(64, elems * sizeof *b->w);
        b->q = qd_malloc_aligned(64, elems * sizeof *b->q);
        b->scratch = qd_malloc_aligned(64, scratch * sizeof *b->scratch);
        b->loss = qd_malloc(2 * g->chunk_rows * sizeof *b->loss);
        b->codes = qd_malloc(elems / 2);
        b->scales = qd_malloc(elems / B);
        ok = b->loss != NULL && b->w != NULL && b->q != NULL && b->scratch != NULL && b->codes != NULL &&
             b->scales != NULL;
    }
    for (uint32_t i = 0; ok && i < s->n_items; i++) {
        const qd_item *it = &p->items[s->items[i]];
        g->codes[i] = qd_malloc(it->rows * it->cols / 2);
        g->scales[i] = qd_malloc(it->rows * it->cols / B);
        ok = g->codes[i] != NULL && g->scales[i] != NULL;
        for (uint32_t t = it->first_tile; t < it->first_tile + it->n_tiles; t++) {
            qd_tile tile = qd_plan_tile(p, t);
            for (uint64_t r = 0; r < tile.n_rows; r += g->chunk_rows)
                g->chunks[g->n_chunks++] = (qd_chunk){.item = s->items[i],
                                                      .tile = t,
                                                      .row = tile.row + r,
                                                      .n = qd_min_u64(g->chunk_rows, tile.n_rows - r)};
        }
    }
    g->end = g->n_chunks;
    return ok ? QD_OK : qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for its weights", p->items[s->items[0]].name);
}

void qd_group_clear_benches(qd_group *g)
{
    for (unsigned i = 0; g->benches != NULL && i < g->n_workers; i++) {
        qd_bench *b = &g->benches[i];
        qd_free(b->w);
        qd_free(b->q);
        qd_free(b->scratch);
        qd_free(b->loss);
        qd_free(b->codes);
        qd_free(b->scales);
    }
    qd_free(g->benches);
    g->benches = NULL;
}

void qd_group_close(qd_group *g)
{
    qd_group_clear_benches(g);
    for (uint32_t i = 0; i < g->work->sites[g->site].n_items; i++) {
        if (g->codes != NULL) qd_free(g->codes[i]);
        if (g->scales != NULL) qd_free(g->scales[i]);
    }
    qd_free(g->chunks);
    qd_free(g->codes);
    qd_free(g->scales);
    qd_free(g->col_weight);
    *g = (qd_group){.work = g->work, .site = g->site};
}

void qd_group_scale(qd_group *g)
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

static qd_code write_item(const qd_group *g, uint32_t item, qd_err *err)
{
    qd_run *run = g->work->run;
    const qd_item *it = qd_group_item(g, item);
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

qd_code qd_group_write(qd_group *g, qd_err *err)
{
    qd_run *run = g->work->run;
    const qd_input_site *s = &g->work->sites[g->site];
    qd_code rc = QD_OK;
    for (uint64_t i = 0; i < g->n_chunks; i++) {
        const qd_chunk *c = &g->chunks[i];
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

qd_code qd_group_measure(qd_group *g, qd_tasks *tasks, qd_err *err)
{
    return qd_tasks_run(tasks, g->end - g->first, measure, g, err);
}

qd_code qd_group_solve(qd_group *g, qd_tasks *tasks, qd_err *err)
{
    qd_code rc = QD_OK;
    if (g->work->run->plan->method.hessian_scale) rc = col_weights(g->work, g->site, &g->col_weight, err);
    return rc == QD_OK ? qd_tasks_run(tasks, g->end - g->first, quantize, g, err) : rc;
}

qd_code qd_group_quantize(qd_layer_work *w, uint32_t site, const qd_gptq_factor *factor, const float *correction,
                          qd_tasks *tasks, qd_lane *lanes, qd_err *err)
{
    qd_group g = {.work = w, .site = site, .factor = factor, .correction = correction, .lanes = lanes};
    qd_code rc = QD_OK;
    QD_TRY(qd_group_open(&g, tasks->n_threads, err));
    qd_group_share_out(&g);
    QD_TRY(qd_group_measure(&g, tasks, err));
    QD_TRY(qd_group_join_amaxes(&g, err));
    qd_group_scale(&g);
    QD_TRY(qd_group_solve(&g, tasks, err));
    QD_TRY(qd_group_join_codes(&g, tasks, err));
    QD_TRY(qd_group_write(&g, err));
out:
    qd_group_close(&g);
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
