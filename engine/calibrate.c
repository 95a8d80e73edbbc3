#include "engine/calibrate.h"

#include "base/clock.h"
#include "base/mem.h"
#include "engine/rounded.h"
#include "engine/sites.h"
#include "gpu/host_blocks.h"
#include "gpu/num.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum {
    TICK_TOKENS = 128,
    EXPERT_TOKENS_MIN = 256 /* an expert that saw fewer takes the largest value of its layer */
};

#define TELL_NS UINT64_C(100000000)

typedef struct calibration {
    qd_run *run;
    qd_journal *journal;
    const qd_job_events *events;
    qd_input_sites sites;
    qd_model_index index;
    bool rounds; /* weights and activations, see calibrate.h */
    unsigned n_workers;
    qd_input_errors *errors; /* MSE: [sites of the layer][n_seqs], by tile: sums in the order of tiles */
    uint64_t n_seqs;         /* of all ranks; as many tiles as that, or fewer */
    uint64_t first_tile;     /* of this rank */
    float (*kv)[2];          /* [n_workers] largest magnitudes of the layer's keys and values */
    qd_input_stats *parts;   /* [sites of the layer][n_workers], empty ones until a worker has seen the site */
    int32_t layer;           /* that parts are of; -1: none */
    uint64_t start_ns, told_ns;
} calibration;

static qd_input_stats *parts_of(const calibration *c, const qd_input_site *s)
{
    uint32_t first = c->sites.layer_first[c->layer];
    return c->parts + (uint64_t)((uint32_t)(s - c->sites.sites) - first) * c->n_workers;
}

static qd_input_errors *errors_of(const calibration *c, const qd_input_site *s)
{
    uint32_t first = c->sites.layer_first[c->layer];
    return c->errors + (uint64_t)((uint32_t)(s - c->sites.sites) - first) * c->n_seqs;
}

static uint32_t n_sites_of(const calibration *c, int32_t layer)
{
    return c->sites.layer_first[layer + 1] - c->sites.layer_first[layer];
}

static void drop_parts(calibration *c)
{
    if (c->parts == NULL) return;
    for (uint64_t i = 0; i < (uint64_t)n_sites_of(c, c->layer) * c->n_workers; i++) qd_input_stats_done(&c->parts[i]);
    qd_free(c->parts);
    qd_free(c->errors);
    c->parts = NULL;
    c->errors = NULL;
}

/* What the workers saw of each site: maxima and counts do not depend on the order of parts. */
static qd_code merge_parts(const calibration *c, qd_input_stats *all, uint32_t n, qd_err *err)
{
    const qd_input_site *site = c->sites.sites + c->sites.layer_first[c->layer];
    for (uint32_t i = 0; i < n; i++) {
        const qd_input_stats *parts = parts_of(c, &site[i]);
        qd_code rc = qd_input_stats_init(site[i].n_channels, false, &all[i], err);
        if (rc != QD_OK) return rc;
        for (unsigned w = 0; w < c->n_workers; w++)
            if (parts[w].n_channels != 0) qd_input_stats_merge(&all[i], &parts[w]);
    }
    for (unsigned w = 1; w < c->n_workers; w++)
        for (int i = 0; i < 2; i++) c->kv[0][i] = fmaxf(c->kv[0][i], c->kv[w][i]);
    return QD_OK;
}

/* The same over ranks, in two or three calls a layer. */
static qd_code reduce(const calibration *c, qd_input_stats *all, uint32_t n, qd_err *err)
{
    const uint64_t n_bins = c->run->plan->input_rule == QD_INPUT_PERCENTILE ? QD_STATS_BINS : 0, each = 1 + n_bins;
    float *largest = qd_calloc(2 * (uint64_t)n + 2, sizeof *largest); /* amax, channel of a value that is bad, cache */
    int64_t *counts = qd_calloc(n * each + 1, sizeof *counts);        /* tokens, bins */
    qd_code rc = QD_OK;
    if (largest == NULL || counts == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for statistics");
        goto out;
    }
    for (uint32_t i = 0; i < n; i++) {
        largest[2 * i] = all[i].amax;
        largest[2 * i + 1] = all[i].bad_token != UINT64_MAX ? (float)(all[i].bad_channel + 1) : 0.0f;
        counts[i * each] = (int64_t)all[i].n_tokens;
        for (uint64_t b = 0; b < n_bins; b++) counts[i * each + 1 + b] = (int64_t)all[i].block_amax_bins[b];
    }
    memcpy(largest + 2 * (uint64_t)n, c->kv[0], sizeof *c->kv);
    QD_TRY(qd_gang_max_f32(c->run->gang, largest, 2 * (uint64_t)n + 2, err));
    QD_TRY(qd_gang_sum_i64(c->run->gang, counts, n * each, err));
    if (c->errors != NULL) QD_TRY(qd_gang_join(c->run->gang, c->errors, n * c->n_seqs * sizeof *c->errors, err));
    for (uint32_t i = 0; i < n; i++) {
        all[i].amax = largest[2 * i];
        if (largest[2 * i + 1] > 0) {
            all[i].bad_token = 0;
            all[i].bad_channel = (uint32_t)largest[2 * i + 1] - 1;
        }
        all[i].n_tokens = (uint64_t)counts[i * each];
        for (uint64_t b = 0; b < n_bins; b++) all[i].block_amax_bins[b] = (uint64_t)counts[i * each + 1 + b];
    }
    memcpy(c->kv[0], largest + 2 * (uint64_t)n, sizeof *c->kv);
out:
    qd_free(largest);
    qd_free(counts);
    return rc;
}

static qd_code amax_of(const calibration *c, const qd_input_site *s, const qd_input_stats *all, float *ret, qd_err *err)
{
    qd_input_errors sum = {0};
    if (all->bad_token != UINT64_MAX)
        return qd_fail(err, QD_E_INPUT,
                       "%s: its input holds a value that is not finite (channel %u): the model overflows on the "
                       "calibration data",
                       c->run->plan->items[s->items[0]].name, all->bad_channel);
    *ret = qd_input_amax(all, c->run->plan->input_rule);
    if (c->errors == NULL) return QD_OK;
    for (uint64_t t = 0; t < c->n_seqs; t++) qd_input_errors_merge(&sum, &errors_of(c, s)[t]);
    *ret = qd_input_errors_amax(&sum);
    return QD_OK;
}

static void set_input(calibration *c, const qd_input_site *s, float amax)
{
    for (uint32_t i = 0; i < s->n_items; i++) c->run->result[s->items[i]].input_amax = amax;
}

static bool of_expert(qd_site_kind k)
{
    return k == QD_SITE_EXPERT_IN || k == QD_SITE_EXPERT_DOWN;
}

/* The largest keys and values of the layer to its projections. */
static void set_cache(calibration *c)
{
    const qd_plan *p = c->run->plan;
    for (uint32_t i = 0; i < p->n_items; i++)
        if (p->items[i].kv != 0 && p->units[p->items[i].unit].layer == c->layer)
            c->run->result[i].kv_amax = c->kv[0][p->items[i].kv == 'k' ? 0 : 1];
    memset(c->kv, 0, c->n_workers * sizeof *c->kv);
}

/* The layer's tiles are done: amax of each site, a line in the journal. */
static qd_code close_layer(calibration *c, qd_err *err)
{
    qd_code rc = QD_OK;
    if (c->layer < 0 || c->parts == NULL) return QD_OK;
    const qd_input_site *site = c->sites.sites + c->sites.layer_first[c->layer];
    uint32_t n = n_sites_of(c, c->layer);
    float largest[QD_SITE_COUNT] = {0};
    qd_input_stats *all = qd_calloc((uint64_t)n + 1, sizeof *all);
    if (all == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for statistics");
        goto out;
    }
    QD_TRY(merge_parts(c, all, n, err));
    QD_TRY(reduce(c, all, n, err));
    for (uint32_t i = 0; i < n; i++) {
        float amax = 0;
        QD_TRY(amax_of(c, &site[i], &all[i], &amax, err));
        set_input(c, &site[i], amax);
        largest[site[i].kind] = fmaxf(largest[site[i].kind], amax);
    }
    for (uint32_t i = 0; i < n; i++)
        if (of_expert(site[i].kind) && all[i].n_tokens < EXPERT_TOKENS_MIN && (c->rounds || all[i].n_tokens == 0))
            set_input(c, &site[i], largest[site[i].kind]);
    set_cache(c);
    QD_TRY(qd_journal_add_inputs(c->journal, c->run, (uint32_t)c->layer, err));
    c->run->layer_inputs[c->layer] = true;
out:
    for (uint32_t i = 0; all != NULL && i < n; i++) qd_input_stats_done(&all[i]);
    qd_free(all);
    drop_parts(c);
    return rc;
}

/* llm-compressor observes models whose norms are 1 + w with BF16 weights that are 1 + w rounded. */
static void round_offset_norms(const qd_model_config *m, qd_layer *layer)
{
    static const qd_slot slots[] = {QD_IN_NORM, QD_POST_NORM, QD_Q_NORM, QD_K_NORM};
    for (size_t i = 0; m->norm_plus_one && i < sizeof slots / sizeof slots[0]; i++) {
        float *w = qd_layer_data(&layer->w[slots[i]]);
        for (uint64_t k = 0; w != NULL && k < layer->w[slots[i]].n; k++)
            w[k] = qd_bf16_to_f32(qd_bf16_from_f32(1.0f + w[k])) - 1.0f;
    }
}

static qd_code on_weights(void *ctx, qd_layer *layer, qd_tasks *tasks, qd_err *err)
{
    calibration *c = ctx;
    qd_code rc = close_layer(c, err);
    if (rc != QD_OK) return rc;
    c->layer = (int32_t)layer->number;
    if (!c->run->layer_inputs[c->layer]) {
        c->parts = qd_calloc((uint64_t)n_sites_of(c, c->layer) * c->n_workers, sizeof *c->parts);
        if (c->run->plan->input_rule == QD_INPUT_MSE)
            c->errors = qd_calloc((uint64_t)n_sites_of(c, c->layer) * c->n_seqs, sizeof *c->errors);
        if (c->parts == NULL || (c->errors == NULL && c->run->plan->input_rule == QD_INPUT_MSE))
            return qd_fail(err, QD_E_NO_MEMORY, "out of memory for statistics");
    }
    if (c->rounds) return qd_round_weights(c->run, layer, tasks, err);
    round_offset_norms(&c->index.config, layer);
    return QD_OK;
}

static qd_code on_cache(void *ctx, uint64_t layer, unsigned worker, const float *k, const float *v, uint64_t rows,
                        uint64_t cols, qd_err *err)
{
    const calibration *c = ctx;
    const float *data[2] = {k, v};
    for (int i = 0; i < 2; i++) {
        float amax = 0;
        bool finite = true;
        qd_code rc = c->run->dev->ops->amax(c->run->dev, QD_F32, data[i], rows * cols, &amax, &finite, err);
        if (rc != QD_OK) return rc;
        if (!finite)
            return qd_fail(err, QD_E_INPUT,
                           "layer %" PRIu64 ": its %s hold a value that is not finite: the model overflows on the "
                           "calibration data",
                           layer, i == 0 ? "keys" : "values");
        c->kv[worker][i] = fmaxf(c->kv[worker][i], amax);
    }
    return QD_OK;
}

static qd_code add_errors(qd_input_errors *sum, const qd_site *at, const uint32_t *bits, qd_err *err)
{
    uint64_t n_blocks = at->cols / QD_NVFP4_BLOCK;
    qd_input_errors e;
    qd_input_errors_init(&e, bits, at->rows * n_blocks);
    for (uint64_t r = 0; r < at->rows; r++) {
        qd_input_errors_add(&e, at->x + r * at->ld, bits + r * n_blocks, n_blocks);
        if (r % TICK_TOKENS == 0) {
            qd_code rc = qd_lane_tick(at->lane, err);
            if (rc != QD_OK) return rc;
        }
    }
    qd_input_errors_merge(sum, &e);
    return QD_OK;
}

/* The site, and its statistics of this worker (NULL: an earlier run has them). NULL: nothing is to be done. */
static const qd_input_site *find_site(const calibration *c, const qd_site *at, qd_input_stats **ret_part)
{
    if (at->layer >= c->run->plan->n_layers) return NULL; /* the head */
    const qd_input_site *s = qd_input_sites_find(&c->sites, (int32_t)at->layer, at->kind, (int32_t)at->expert);
    if (s == NULL) return NULL;
    *ret_part = c->parts != NULL ? parts_of(c, s) + at->worker : NULL;
    return *ret_part != NULL || c->rounds ? s : NULL;
}

static bool all_finite(const uint32_t *bits, uint64_t n)
{
    uint32_t most = 0;
    for (uint64_t i = 0; i < n; i++) most = bits[i] > most ? bits[i] : most;
    return most < 0x7f800000u;
}

/* On the device but for the largest magnitudes of blocks, a sixteenth of the values. Squared errors are the host's, and
 * it is the host that finds the place of a value that is not finite. */
static qd_code on_input_there(void *ctx, const qd_site *at, float *replaced, bool *ret_replaced, bool *ret_done,
                              qd_err *err)
{
    calibration *c = ctx;
    qd_lane *l = at->lane;
    qd_input_stats *part = NULL;
    const qd_input_site *s = find_site(c, at, &part);
    const qd_scratch_mark mark = qd_scratch_here(&l->scratch);
    const uint64_t n_blocks = at->rows * at->cols / QD_NVFP4_BLOCK;
    float *there = NULL;
    qd_code rc = QD_OK;
    *ret_replaced = false;
    *ret_done = s == NULL;
    if (s == NULL || c->errors != NULL) return QD_OK;
    uint32_t *bits = qd_malloc(n_blocks * sizeof *bits);
    if (bits == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for statistics");
    QD_TRY(qd_scratch_take(&l->scratch, 1, n_blocks, &there, err));
    l->ops->block_amax(l, at->x, n_blocks, (uint32_t *)(void *)there);
    QD_TRY(l->ops->download(l, QD_F32, there, n_blocks, bits, err));
    if (!all_finite(bits, n_blocks)) goto out;
    if (part != NULL && part->n_channels == 0) QD_TRY(qd_input_stats_init(s->n_channels, false, part, err));
    if (part != NULL) qd_input_stats_add_bits(part, bits, at->rows);
    const float gs = c->rounds ? qd_round_scale(bits, n_blocks) : 0.0f;
    if (gs != 0.0f) l->ops->fake_quant(l, gs, (const uint32_t *)(const void *)there, at->x, n_blocks, replaced);
    *ret_replaced = gs != 0.0f;
    *ret_done = true;
out:
    qd_scratch_back(&l->scratch, mark);
    qd_free(bits);
    return rc;
}

static qd_code on_input(void *ctx, const qd_site *at, float *replaced, bool *ret_replaced, qd_err *err)
{
    calibration *c = ctx;
    qd_input_stats *part = NULL;
    const qd_input_site *s = find_site(c, at, &part);
    *ret_replaced = false;
    if (s == NULL) return QD_OK;
    uint64_t n_blocks = at->cols / QD_NVFP4_BLOCK; /* of a token */
    uint32_t *bits = qd_malloc(at->rows * n_blocks * sizeof *bits);
    qd_code rc = QD_OK;
    if (bits == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for statistics");
    if (part != NULL && part->n_channels == 0) QD_TRY(qd_input_stats_init(s->n_channels, false, part, err));
    for (uint64_t r = 0; r < at->rows; r++) {
        if (part != NULL)
            qd_input_stats_add(part, at->x + r * at->ld, 1, bits + r * n_blocks);
        else
            qd_host_block_amax(at->x + r * at->ld, n_blocks, bits + r * n_blocks);
        if (r % TICK_TOKENS == 0) QD_TRY(qd_lane_tick(at->lane, err));
    }
    if (c->errors != NULL) QD_TRY(add_errors(&errors_of(c, s)[c->first_tile + at->tile], at, bits, err));
    float gs = c->rounds ? qd_round_scale(bits, at->rows * n_blocks) : 0.0f;
    *ret_replaced = gs != 0.0f;
    for (uint64_t r = 0; r < at->rows && gs != 0.0f; r++) {
        qd_host_fake_quant(gs, bits + r * n_blocks, at->x + r * at->ld, n_blocks, replaced + r * at->cols);
        if (r % TICK_TOKENS == 0) QD_TRY(qd_lane_tick(at->lane, err));
    }
out:
    qd_free(bits);
    return rc;
}

static void on_progress(void *ctx, uint64_t layer, uint64_t n_layers, uint64_t tiles_done, uint64_t n_tiles,
                        uint64_t n_ticks)
{
    calibration *c = ctx;
    if (c->events == NULL || c->events->progress == NULL) return;
    uint64_t now = qd_mono_ns();
    bool last = layer + 1 == n_layers && tiles_done == n_tiles;
    if (!last && now - c->told_ns < TELL_NS) return;
    c->told_ns = now;
    double elapsed = (double)(now - c->start_ns) * 1e-9;
    uint64_t done = layer * n_tiles + tiles_done, total = n_layers * n_tiles;
    qd_job_progress p = {.phase = "calibrate",
                         .layer = (int32_t)layer - 1,
                         .n_layers = (int32_t)n_layers,
                         .done_bytes = done,
                         .total_bytes = total,
                         .elapsed_s = elapsed,
                         .eta_s = done > 0 ? elapsed / (double)done * (double)(total - done) : -1,
                         .n_steps = n_ticks};
    c->events->progress(c->events->ctx, &p);
}

qd_code qd_calibrate(qd_run *run, const qd_tokens *tokens, const char *spill_dir, qd_journal *journal,
                     const qd_job_events *events, qd_cancel *cancel, qd_forward_stats *ret_stats, qd_err *err)
{
    const qd_plan *p = run->plan;
    qd_code rc = QD_OK;
    qd_arena arena = {0};
    calibration c = {.run = run,
                     .journal = journal,
                     .events = events,
                     .rounds = p->recipe.arith != QD_SCALE_CT_EXACT,
                     .n_workers = p->n_compute,
                     .n_seqs = tokens->n_seqs,
                     .layer = -1,
                     .start_ns = qd_mono_ns()};
    bool all_seen = true;
    c.kv = qd_calloc(c.n_workers, sizeof *c.kv);
    if (c.kv == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for statistics");
    for (uint32_t i = 0; i < p->n_layers; i++) all_seen = all_seen && run->layer_inputs[i];
    if (!all_seen) {
        QD_TRY(qd_model_index_open(p->ckpt, &c.index, err));
        QD_TRY(qd_input_sites_make(p, &c.index, &arena, &c.sites, err));
        qd_forward_opts opts = qd_calibrate_options(p);
        opts.spill_dir = spill_dir;
        opts.cancel = cancel;
        qd_forward_hooks hooks = {.ctx = &c,
                                  .on_weights = on_weights,
                                  .on_input = on_input,
                                  .on_input_there = on_input_there,
                                  .on_progress = on_progress};
        if (p->info.kv_cache) hooks.on_cache = on_cache;
        qd_tokens mine;
        c.first_tile = qd_tokens_part(&c.index.config, tokens, qd_gang_rank(run->gang), qd_gang_size(run->gang), &mine);
        QD_TRY(qd_forward_run(&c.index, &mine, &opts, &hooks, ret_stats, err));
        QD_TRY(close_layer(&c, err));
    }
    for (uint32_t i = 0; i < p->n_items; i++)
        if (p->units[p->items[i].unit].kind == QD_UNIT_QUANTIZE)
            run->result[i].input_gs = qd_input_global(&p->recipe, QD_BF16, run->result[i].input_amax);
out:
    drop_parts(&c);
    qd_free(c.kv);
    qd_model_index_done(&c.index);
    qd_arena_done(&arena);
    return rc;
}
