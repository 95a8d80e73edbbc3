#include "engine/layerwise_streams.h"

#include "base/clock.h"
#include "base/mem.h"
#include "engine/rounded.h"
#include "gpu/host_blocks.h"
#include "gpu/num.h"

#include <math.h>
#include <string.h>

#define TELL_NS UINT64_C(95000000)
enum {
    SAMPLE_TILES = 16,
    SAMPLE_ROWS = 8,
    ROUND_BLOCKS = 1 << 17, /* of inputs that are rounded between two ticks */
    SOURCE_PART = 4,        /* of the calibration sequences, and no fewer than so many tokens */
    SOURCE_TOKENS_MIN = 8192
};

qd_stage qd_layerwise_stage_of(qd_site_kind kind)
{
    switch (kind) {
    case QD_SITE_ATTN_IN:
    case QD_SITE_DELTA_IN:
        return QD_STAGE_MIXER_IN;
    case QD_SITE_ATTN_OUT:
    case QD_SITE_DELTA_OUT:
        return QD_STAGE_MIXER_OUT;
    case QD_SITE_MLP_IN:
    case QD_SITE_SHARED_IN:
    case QD_SITE_EXPERT_IN:
    case QD_SITE_ROUTER:
        return QD_STAGE_MLP_IN;
    case QD_SITE_MLP_DOWN:
    case QD_SITE_SHARED_DOWN:
    case QD_SITE_EXPERT_DOWN:
        return QD_STAGE_MLP_DOWN;
    case QD_SITE_HEAD:
    case QD_SITE_COUNT:
        break;
    }
    return QD_STAGE_ALL;
}

/* Number in the layer of the site that is seen; QD_NONE: nothing quantized reads it. */
static uint32_t site_at(const qd_layerwise *l, const qd_site *at)
{
    if (at->layer >= l->run->plan->n_layers) return QD_NONE; /* the head */
    const qd_input_site *s = qd_input_sites_find(&l->sites, (int32_t)at->layer, at->kind, (int32_t)at->expert);
    return s != NULL ? (uint32_t)(s - (l->sites.sites + l->sites.layer_first[at->layer])) : QD_NONE;
}

/* Rows spread over the last piece of each of the first tiles: whoever does a tile, they are the same. Not its first
 * ones: a sequence's first token can have values a thousand times as large as others, and would decide alone. */
static void keep_some(qd_layerwise *l, uint32_t site, const qd_site *at)
{
    qd_site_sample *s = &l->work->samples[site];
    uint64_t tile = l->first_tile + at->tile;
    if (s->rows == NULL || tile >= SAMPLE_TILES || at->rows < SAMPLE_ROWS) return;
    for (uint64_t r = 0; r < SAMPLE_ROWS; r++)
        memcpy(s->rows + (tile * SAMPLE_ROWS + r) * at->cols,
               at->x + (2 * r + 1) * at->rows / (2 * SAMPLE_ROWS) * at->ld, at->cols * sizeof *s->rows);
}

static qd_code on_source(void *ctx, const qd_site *at, float *replaced, bool *ret_replaced, qd_err *err)
{
    qd_layerwise *l = ctx;
    uint32_t site = l->parts != NULL ? site_at(l, at) : QD_NONE;
    (void)replaced;
    *ret_replaced = false;
    if (site == QD_NONE) return QD_OK;
    qd_moments *m = &l->parts[(uint64_t)site * l->n_workers + at->worker];
    if (m->n_channels == 0) {
        qd_code rc = qd_moments_init((uint32_t)at->cols, m, err);
        if (rc != QD_OK) return rc;
    }
    qd_moments_add(m, at->x, at->rows, at->ld);
    keep_some(l, site, at);
    return qd_corrects(l, site) ? qd_correction_keep(l, site, at, err) : QD_OK;
}

/* The range of the layer's sites of one kind: they stand together. */
static uint32_t first_of(const qd_layer_work *w, qd_site_kind kind, uint32_t *ret_end)
{
    uint32_t first = 0;
    while (first < w->n_sites && w->sites[first].kind != kind) first++;
    *ret_end = first;
    while (*ret_end < w->n_sites && w->sites[*ret_end].kind == kind) (*ret_end)++;
    return first;
}

/* The worker's tile brings no more for experts before `until`. */
static qd_code pass_experts(qd_layerwise *l, unsigned worker, uint64_t tile, uint32_t until, qd_err *err)
{
    for (uint32_t *at = &l->passed[worker]; *at < until; (*at)++) {
        if (l->seen[*at].hessian == NULL) continue;
        qd_code rc = qd_hessian_pass(l->seen[*at].hessian, l->o->cancel, tile, err);
        if (rc != QD_OK) return rc;
    }
    return QD_OK;
}

static qd_code on_tile_end(void *ctx, uint64_t tile, unsigned worker, qd_err *err)
{
    qd_layerwise *l = ctx;
    uint32_t end = 0;
    if (l->seen == NULL || l->stage != QD_STAGE_MLP_DOWN) return QD_OK;
    uint32_t first = first_of(l->work, QD_SITE_EXPERT_DOWN, &end);
    qd_code rc = pass_experts(l, worker, tile, end, err);
    l->passed[worker] = first;
    return rc;
}

static qd_code add_to_hessian(qd_layerwise *l, uint32_t site, const qd_site *at, const float *x, uint64_t ld,
                              qd_err *err)
{
    qd_site_seen *s = &l->seen[site];
    unsigned w = at->worker;
    qd_lane *lane = at->lane->ops->on_host ? &l->lanes[w] : at->lane; /* on a device: behind what made x */
    if (at->kind == QD_SITE_EXPERT_DOWN) {
        qd_code rc = pass_experts(l, w, at->tile, site, err);
        return rc == QD_OK ? qd_hessian_add(s->hessian, lane, x, ld, at->rows, at->tile, 0, err) : rc;
    }
    if (s->tile[w] != at->tile) {
        s->tile[w] = at->tile;
        s->row[w] = 0;
    }
    uint64_t first = at->row + s->row[w];
    s->row[w] += at->rows;
    if (qd_corrects(l, site)) return qd_correction_add(l, site, at, first, x, ld, err);
    return qd_hessian_add(s->hessian, lane, x, ld, at->rows, first, at->rows, err);
}

/* The same as qd_layerwise_round_there() in the program's memory. */
static qd_code round_here(const qd_site *at, float *y, float *ret_amax, qd_err *err)
{
    const float *x = at->x;
    uint64_t n_blocks = at->rows * (at->cols / QD_NVFP4_BLOCK);
    uint32_t *bits = qd_malloc(n_blocks * sizeof *bits), most = 0;
    qd_code rc = QD_OK;
    if (bits == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for inputs");
    for (uint64_t r = 0; at->ld != at->cols && r < at->rows; r++)
        memcpy(y + r * at->cols, at->x + r * at->ld, at->cols * sizeof *y);
    if (at->ld != at->cols) x = y;
    qd_host_block_amax(x, n_blocks, bits);
    for (uint64_t b = 0; b < n_blocks; b++) most = bits[b] > most ? bits[b] : most;
    float gs = qd_round_scale(bits, n_blocks);
    for (uint64_t b = 0; b < n_blocks; b += ROUND_BLOCKS) {
        const uint64_t n = qd_min_u64(ROUND_BLOCKS, n_blocks - b), i = b * QD_NVFP4_BLOCK;
        QD_TRY(qd_lane_tick(at->lane, err));
        if (gs > 0)
            qd_host_fake_quant(gs, bits + b, x + i, n, y + i);
        else if (x != y)
            memcpy(y + i, x + i, n * QD_NVFP4_BLOCK * sizeof *y);
    }
    *ret_amax = qd_bits_f32(most);
out:
    qd_free(bits);
    return rc;
}

/* Inputs of the quantized model: as its kernels round them. */
static qd_code on_quantized(void *ctx, const qd_site *at, float *replaced, bool *ret_replaced, qd_err *err)
{
    qd_layerwise *l = ctx;
    bool router = at->kind == QD_SITE_ROUTER;
    uint32_t site = router && l->work != NULL ? l->work->n_sites : site_at(l, at);
    const float *x = at->x;
    uint64_t ld = at->ld;
    *ret_replaced = false;
    if (site == QD_NONE || (router && (l->seen == NULL || l->seen[site].hessian == NULL))) return QD_OK;
    qd_site_seen *s = l->seen != NULL && qd_layerwise_stage_of(at->kind) == l->stage ? &l->seen[site] : NULL;
    if (l->run->plan->info.input_scales) {
        float amax = 0;
        qd_code rc = at->lane->ops->on_host ? round_here(at, replaced, &amax, err)
                                            : qd_layerwise_round_there(at, replaced, &amax, err);
        if (rc == QD_OK) rc = qd_lane_tick(at->lane, err);
        if (rc != QD_OK) return rc;
        if (s != NULL && !(amax <= s->amax[at->worker])) s->amax[at->worker] = amax;
        x = replaced;
        ld = at->cols;
        *ret_replaced = true;
    }
    return s != NULL && s->hessian != NULL ? add_to_hessian(l, site, at, x, ld, err) : QD_OK;
}

static qd_code on_quantized_there(void *ctx, const qd_site *at, float *replaced, bool *ret_replaced, bool *ret_done,
                                  qd_err *err)
{
    *ret_done = true;
    return on_quantized(ctx, at, replaced, ret_replaced, err);
}

static void on_failure(void *ctx)
{
    qd_layerwise *l = ctx;
    for (uint32_t i = 0; l->seen != NULL && i <= l->work->n_sites; i++)
        if (l->seen[i].hessian != NULL) qd_hessian_fail(l->seen[i].hessian);
}

static void note_gap(qd_layerwise *l, uint64_t n_ticks, uint64_t now_ns)
{
    if (l->moved_ns == 0) l->moved_ns = now_ns;
    l->stats.longest_tick_gap_us = qd_max_u64(l->stats.longest_tick_gap_us, (now_ns - l->moved_ns) / 1000);
    if (n_ticks == l->ticks) return;
    l->ticks = n_ticks;
    l->moved_ns = now_ns;
}

static void show(qd_layerwise *l, uint64_t part, uint64_t parts, uint64_t n_ticks)
{
    const qd_job_events *events = l->o->events;
    uint64_t now = qd_mono_ns();
    note_gap(l, n_ticks, now);
    if (events == NULL || events->progress == NULL || now - l->told_ns < TELL_NS) return;
    l->told_ns = now;
    if (n_ticks != l->ticks_seen) l->n_steps++; /* counts of several streams: only that they move says something */
    l->ticks_seen = n_ticks;
    uint64_t unit = l->n_pieces * 1000, total = l->index.config.n_layers * unit;
    uint64_t done = l->layers_done * unit + l->piece * 1000 + (parts != 0 ? part * 1000 / parts : 0);
    double elapsed = (double)(now - l->start_ns) * 1e-9;
    done = qd_max_u64(qd_min_u64(done, total), l->shown);
    l->shown = done;
    qd_job_progress p = {.phase = "calibrate",
                         .layer = (int32_t)l->layers_done - 1,
                         .n_layers = (int32_t)l->index.config.n_layers,
                         .done_bytes = done,
                         .total_bytes = total,
                         .elapsed_s = elapsed,
                         .eta_s = done > 0 ? elapsed / (double)done * (double)(total - done) : -1,
                         .n_steps = l->n_steps};
    events->progress(events->ctx, &p);
}

static void on_progress(void *ctx, uint64_t layer, uint64_t n_layers, uint64_t done, uint64_t n_tiles, uint64_t n_ticks)
{
    qd_layerwise *l = ctx;
    (void)layer;
    (void)n_layers;
    show(l, done, n_tiles, n_ticks + l->tasks.n_ticks + atomic_load(&l->n_ticks));
}

static void on_tasks(void *ctx, uint64_t n_ticks)
{
    qd_layerwise *l = ctx;
    show(l, 0, 0, n_ticks + atomic_load(&l->n_ticks));
}

/* Stands for who sees the logits of two streams: only that there is somebody is asked. */
static qd_code sees_logits(void *ctx, uint64_t first_row, uint64_t rows, const float *x, qd_err *err)
{
    (void)ctx;
    (void)first_row;
    (void)rows;
    (void)x;
    (void)err;
    return QD_OK;
}

static qd_layerwise_pass pass_of(qd_layerwise *l, const qd_tokens *t, bool quantized, bool exact, qd_stream **stream)
{
    const qd_ops *ops = qd_layerwise_ops(l->run);
    return (qd_layerwise_pass){
        .tokens = t,
        .opts = {.ops = ops->on_host && exact && !quantized ? qd_ops_host("cpu") : ops,
                 .bf16 = !exact,
                 .n_threads = l->n_workers,
                 .memory_bytes = l->run->plan->activation_bytes,
                 .spill_dir = l->o->spill_dir,
                 .cancel = l->o->cancel,
                 .keep_inputs = quantized && !exact},
        .hooks = {.ctx = l,
                  .on_input = quantized ? on_quantized : on_source,
                  .on_input_there = quantized ? on_quantized_there : NULL,
                  .on_logits = exact ? sees_logits : NULL,
                  .on_failure = on_failure,
                  .on_cache = quantized || !l->run->plan->info.kv_cache ? NULL : qd_layerwise_on_cache,
                  .on_tile_end = quantized ? on_tile_end : NULL,
                  .on_progress = on_progress},
        .stream = stream};
}

/* GPTQ takes of the source's inputs their second moments alone, to the power of 1/4: a quarter of the tokens will do.
 * Not where largest values are wanted, outputs are corrected, or experts see a few tokens each. */
static qd_tokens source_tokens(const qd_layerwise *l)
{
    const qd_plan *p = l->run->plan;
    qd_tokens t = *l->o->calib;
    uint64_t n = qd_div_up(t.n_seqs, SOURCE_PART);
    if (!p->method.gptq || p->method.correction > 0 || p->info.kv_cache || l->index.config.n_experts != 0) return t;
    while (n < t.n_seqs && t.starts[n] < SOURCE_TOKENS_MIN) n++;
    t.n_seqs = n;
    return t;
}

qd_code qd_layerwise_open(qd_layerwise *l, bool calib, qd_err *err)
{
    const qd_plan *p = l->run->plan;
    const qd_ops *ops = qd_layerwise_ops(l->run);
    qd_layerwise_pass passes[4];
    unsigned n = 0;
    qd_code rc = QD_OK;
    l->n_workers = p->n_compute;
    l->n_lanes = ops->n_lanes_max != 0 ? (unsigned)qd_min_u64(l->n_workers, ops->n_lanes_max) : l->n_workers;
    l->tasks = (qd_tasks){.n_threads = l->n_workers, .cancel = l->o->cancel, .tell = on_tasks, .ctx = l};
    QD_TRY(qd_model_index_open(p->ckpt, &l->index, err));
    QD_TRY(qd_input_sites_make(p, &l->index, &l->arena, &l->sites, err));
    const uint32_t rank = qd_gang_rank(l->run->gang), n_ranks = qd_gang_size(l->run->gang);
    const qd_tokens few = source_tokens(l);
    (void)qd_tokens_part(&l->index.config, l->o->calib, rank, n_ranks, &l->calib);
    l->first_tile = qd_tokens_part(&l->index.config, &few, rank, n_ranks, &l->source_tokens);
    (void)qd_tokens_part(&l->index.config, l->o->held, rank, n_ranks, &l->held);
    if (calib) passes[n++] = pass_of(l, &l->source_tokens, false, false, &l->source);
    if (calib && p->method.gptq) passes[n++] = pass_of(l, &l->calib, true, false, &l->quantized);
    if (calib && p->method.correction > 0) QD_TRY(qd_correction_open(l, err));
    if (l->o->held->n_seqs != 0) {
        passes[n++] = pass_of(l, &l->held, false, true, &l->held_source);
        passes[n++] = pass_of(l, &l->held, true, true, &l->held_quantized);
    }
    QD_TRY(qd_layerwise_reserve(l, passes, n, err));
    QD_TRY(qd_layerwise_lanes_open(l, err));
    for (unsigned i = 0; i < n; i++) {
        passes[i].hooks.on_logits = NULL; /* qd_stream_logits() has its own */
        QD_TRY(qd_stream_open(&l->index, passes[i].tokens, &passes[i].opts, &passes[i].hooks, passes[i].stream, err));
    }
out:
    return rc;
}

static void close_stream(qd_layerwise *l, qd_stream **stream)
{
    qd_stream_add_stats(*stream, &l->stats);
    qd_stream_free(*stream);
    *stream = NULL;
}

void qd_layerwise_close_calib(qd_layerwise *l)
{
    close_stream(l, &l->source);
    close_stream(l, &l->quantized);
}

void qd_layerwise_close(qd_layerwise *l)
{
    qd_layerwise_close_calib(l);
    close_stream(l, &l->held_source);
    close_stream(l, &l->held_quantized);
    qd_correction_close(l);
    qd_layerwise_lanes_close(l);
    qd_model_index_done(&l->index);
    qd_arena_done(&l->arena);
}

/* Parts do not depend on the order of tokens, nor does their sum. */
static qd_code merge_parts(qd_layerwise *l, qd_err *err)
{
    qd_layer_work *w = l->work;
    for (uint32_t s = 0; s < w->n_sites; s++) {
        qd_code rc = qd_moments_init(w->sites[s].n_channels, &w->moments[s], err);
        if (rc != QD_OK) return rc;
        for (unsigned i = 0; i < l->n_workers; i++) {
            const qd_moments *part = &l->parts[(uint64_t)s * l->n_workers + i];
            if (part->n_channels != 0) qd_moments_merge(&w->moments[s], part);
        }
    }
    qd_code rc = qd_layerwise_reduce_moments(l, err);
    for (uint32_t s = 0; rc == QD_OK && s < w->n_sites; s++)
        if (w->moments[s].bad)
            return qd_fail(err, QD_E_INPUT,
                           "%s: its input holds a value that is not finite: the model overflows on the calibration "
                           "data",
                           l->run->plan->items[w->sites[s].items[0]].name);
    return rc;
}

qd_code qd_layerwise_observe(qd_layerwise *l, bool collect, qd_err *err)
{
    uint64_t n = (uint64_t)l->work->n_sites * l->n_workers;
    qd_code rc = QD_OK;
    if (collect && n != 0) {
        l->parts = qd_calloc(n, sizeof *l->parts);
        if (l->parts == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for moments");
        for (uint32_t i = 0; l->run->plan->method.balance && i < l->work->n_sites; i++) {
            qd_site_sample *s = &l->work->samples[i];
            if (l->work->sites[i].expert >= 0) continue; /* their tokens are few, and not the same rows */
            s->n_rows = SAMPLE_TILES * SAMPLE_ROWS;      /* those that no tile has are zero */
            s->rows = qd_calloc((size_t)s->n_rows * l->work->sites[i].n_channels, sizeof *s->rows);
            if (s->rows == NULL) {
                rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for samples of inputs");
                goto out;
            }
        }
    }
    if (collect) QD_TRY(qd_layerwise_cache_begin(l, err));
    if (collect) qd_correction_begin(l);
    QD_TRY(qd_stream_run(l->source, l->work->layer, QD_STAGE_ALL, err));
    if (l->parts != NULL) QD_TRY(merge_parts(l, err));
out:
    for (uint64_t i = 0; l->parts != NULL && i < n; i++) qd_moments_done(&l->parts[i]);
    qd_free(l->parts);
    l->parts = NULL;
    return rc;
}

/* Hessians of experts' downs, where they are not too many. */
static bool has_room(const qd_layerwise *l)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < l->work->n_sites; i++)
        if (l->work->sites[i].kind == QD_SITE_EXPERT_DOWN) bytes += qd_hessian_bytes(l->work->sites[i].n_channels);
    return bytes <= l->run->plan->activation_bytes;
}

static qd_code begin_seen(const qd_layerwise *l, qd_site_seen *s, uint64_t hessian, bool cross, qd_err *err)
{
    s->amax = qd_calloc(l->n_workers, sizeof *s->amax);
    s->tile = qd_calloc(l->n_workers, sizeof *s->tile);
    s->row = qd_calloc(l->n_workers, sizeof *s->row);
    if (s->amax == NULL || s->tile == NULL || s->row == NULL)
        return qd_fail(err, QD_E_NO_MEMORY, "out of memory for Hessians");
    for (unsigned k = 0; k < l->n_workers; k++) s->tile[k] = UINT64_MAX;
    if (hessian == 0) return QD_OK;
    if (!l->lanes[0].ops->on_host) return qd_hessian_new_there(hessian, &l->lanes[0], &s->hessian, err);
    return cross ? qd_hessian_new_cross(hessian, &s->hessian, err) : qd_hessian_new(hessian, &s->hessian, err);
}

qd_code qd_layerwise_stage(qd_layerwise *l, qd_stage stage, qd_err *err)
{
    const qd_layer_work *w = l->work;
    uint32_t end = 0, down = first_of(w, QD_SITE_EXPERT_DOWN, &end);
    bool room = has_room(l);
    uint64_t experts_in = 0;
    qd_code rc = QD_OK;
    l->stage = stage;
    l->seen = qd_calloc((uint64_t)w->n_sites + 1, sizeof *l->seen);
    l->passed = qd_calloc(l->n_workers, sizeof *l->passed);
    if (l->seen == NULL || l->passed == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for Hessians");
    for (unsigned i = 0; i < l->n_workers; i++) l->passed[i] = down;
    for (uint32_t i = 0; i < w->n_sites; i++) {
        const qd_input_site *s = &w->sites[i];
        if (qd_layerwise_stage_of(s->kind) != stage) continue;
        bool shared = s->kind == QD_SITE_EXPERT_IN, wanted = !shared && (room || s->kind != QD_SITE_EXPERT_DOWN);
        if (shared) experts_in = s->n_channels;
        QD_TRY(begin_seen(l, &l->seen[i], wanted ? s->n_channels : 0, qd_corrects(l, i), err));
    }
    if (experts_in != 0) QD_TRY(begin_seen(l, &l->seen[w->n_sites], experts_in, false, err));
    QD_TRY(qd_stream_run(l->quantized, w->layer, stage, err));
    rc = qd_layerwise_reduce_stage(l, err);
out:
    return rc;
}

void qd_layerwise_forget(qd_layerwise *l)
{
    for (uint32_t i = 0; l->seen != NULL && i <= l->work->n_sites; i++) {
        qd_hessian_free(l->seen[i].hessian);
        qd_free(l->seen[i].amax);
        qd_free(l->seen[i].tile);
        qd_free(l->seen[i].row);
    }
    qd_free(l->seen);
    qd_free(l->passed);
    l->seen = NULL;
    l->passed = NULL;
}
