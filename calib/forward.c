/* forward.c -- the pass over all layers: embed, each layer in turn over all tiles, final norm and head. */
#include "calib/forward.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "calib/activations.h"
#include "calib/layer_run.h"
#include "calib/stream.h"
#include "calib/tiles.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define MEMORY_DEFAULT (UINT64_C(1) << 30)
#define ROWS_MAX       UINT32_MAX
#define TELL_NS        UINT64_C(100000000)
enum {
    EMBED_ROWS = 64 /* each a read of its own, somewhere in the file */
};

typedef struct run {
    const qd_model_index *x;
    const qd_tokens *t;
    const qd_forward_opts *o;
    const qd_forward_hooks *hooks;
    const qd_ops *ops;
    qd_tiles tiles;
    qd_tasks tasks; /* of weights; its ticks go to those of the tiles */
    qd_activations acts;
    qd_pass pass;
    float *angles; /* cos, then sin */
    qd_weight angles_there;
    qd_single norm, head;
    uint64_t layer, told_ns, task_ticks; /* for progress: layer, when it was last told between runs of tiles, ticks of
                                            tasks that were added */
    uint64_t peak_bytes, sampled_ns, device_bytes;
} run;

static qd_code check_tokens(const run *r, qd_err *err)
{
    const qd_tokens *t = r->t;
    uint64_t vocab = r->x->config.vocab;
    if (t->starts[t->n_seqs] > ROWS_MAX)
        return qd_fail(err, QD_E_INPUT, "expected at most %u tokens, found %" PRIu64, ROWS_MAX, t->starts[t->n_seqs]);
    for (uint64_t i = 0; i < t->n_seqs; i++) {
        if (t->starts[i + 1] <= t->starts[i]) return qd_fail(err, QD_E_INPUT, "sequence %" PRIu64 " is empty", i);
        for (uint64_t j = t->starts[i]; j < t->starts[i + 1]; j++)
            if (t->ids[j] < 0 || (uint64_t)t->ids[j] >= vocab)
                return qd_fail(err, QD_E_INPUT,
                               "sequence %" PRIu64 ", token %" PRIu64 ": expected an id below %" PRIu64
                               ", found %" PRId32,
                               i, j - t->starts[i], vocab, t->ids[j]);
    }
    return QD_OK;
}

static qd_code round_all(const run *r, float *x, uint64_t n, qd_err *err)
{
    uint16_t *b = qd_malloc(n * sizeof *b);
    if (b == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for %" PRIu64 " angles", n);
    r->ops->store(QD_BF16, x, n, b);
    r->ops->load(QD_BF16, b, n, x);
    qd_free(b);
    return QD_OK;
}

/* Tables of cos and sin over the longest sequence. */
static qd_code make_angles(run *r, qd_err *err)
{
    const qd_rope *rope = &r->x->config.rope;
    uint64_t longest = 1, half = rope->dim / 2;
    for (uint64_t i = 0; i < r->t->n_seqs; i++) longest = qd_max_u64(longest, r->t->starts[i + 1] - r->t->starts[i]);
    float *f = qd_malloc(half * sizeof *f);
    qd_code rc = QD_OK;
    r->angles = qd_malloc(2 * longest * half * sizeof *r->angles);
    if (f == NULL || r->angles == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for angles of %" PRIu64 " positions", longest);
        goto out;
    }
    qd_rope_frequencies(rope, f);
    if (r->o->rope_bf16) QD_TRY(round_all(r, f, half, err));
    float *sines = r->angles + longest * half, scale = (float)rope->attention_factor;
    for (uint64_t p = 0; p < longest; p++)
        for (uint64_t j = 0; j < half; j++) {
            r->angles[p * half + j] = cosf((float)p * f[j]) * scale;
            sines[p * half + j] = sinf((float)p * f[j]) * scale;
        }
    if (r->o->bf16) QD_TRY(round_all(r, r->angles, 2 * longest * half, err));
    r->angles_there = (qd_weight){.dtype = QD_F32, .n = 2 * longest * half, .k = 1, .data = r->angles};
    QD_TRY(r->ops->weight_pack(r->ops, &r->angles_there, false, NULL, err));
    r->pass.cos = qd_weight_values(&r->angles_there);
    r->pass.sin = r->pass.cos + longest * half;
out:
    qd_free(f);
    return rc;
}

static qd_code see_hidden(const run *r, qd_lane *lane, uint64_t index, const qd_token_tile *tile, const float *x,
                          qd_err *err)
{
    const float *seen = NULL;
    float *copy = NULL;
    if (r->hooks->on_hidden == NULL) return QD_OK;
    qd_code rc = qd_lane_see(lane, x, tile->n_rows * r->x->config.hidden, &seen, &copy, err);
    if (rc == QD_OK) rc = r->hooks->on_hidden(r->hooks->ctx, index, tile->first_row, tile->n_rows, seen, err);
    qd_free(copy);
    return rc;
}

/* Hidden vectors of a tile between the store and the device. */
static qd_code fetch_rows(const run *r, qd_lane *lane, const qd_token_tile *tile, float *x, qd_err *err)
{
    return r->ops->upload(lane, r->acts.dtype, qd_activations_row(&r->acts, tile->first_row),
                          tile->n_rows * r->x->config.hidden, x, err);
}

static qd_code store_rows(const run *r, qd_lane *lane, const qd_token_tile *tile, const float *x, qd_err *err)
{
    return r->ops->download(lane, r->acts.dtype, x, tile->n_rows * r->x->config.hidden,
                            qd_activations_row(&r->acts, tile->first_row), err);
}

static qd_code embed_tile(void *arg, qd_lane *lane, unsigned worker, const qd_token_tile *tile, qd_err *err)
{
    const run *r = arg;
    qd_scratch_mark mark = qd_scratch_here(&lane->scratch);
    uint64_t hidden = r->x->config.hidden;
    float *x = NULL, *own = NULL;
    qd_code rc = QD_OK;
    (void)worker;
    if (r->ops->on_host) {
        QD_TRY(qd_scratch_take(&lane->scratch, tile->n_rows, hidden, &x, err));
    } else {
        x = own = qd_malloc(tile->n_rows * hidden * sizeof *own);
        if (own == NULL) {
            rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for %" PRIu64 " embeddings", tile->n_rows);
            goto out;
        }
    }
    for (uint64_t i = 0; i < tile->n_rows; i += EMBED_ROWS) {
        QD_TRY(qd_embed_rows(r->x, r->ops, lane->bf16, r->t->ids + tile->first_row + i,
                             qd_min_u64(EMBED_ROWS, tile->n_rows - i), x + i * hidden, err));
        QD_TRY(qd_lane_tick(lane, err));
    }
    r->ops->store(r->acts.dtype, x, tile->n_rows * hidden, qd_activations_row(&r->acts, tile->first_row));
    if (r->hooks->on_hidden != NULL) rc = r->hooks->on_hidden(r->hooks->ctx, 0, tile->first_row, tile->n_rows, x, err);
out:
    qd_free(own);
    qd_scratch_back(&lane->scratch, mark);
    return rc;
}

static qd_code layer_tile(void *arg, qd_lane *lane, unsigned worker, const qd_token_tile *tile, qd_err *err)
{
    const run *r = arg;
    qd_scratch_mark mark = qd_scratch_here(&lane->scratch);
    uint64_t hidden = r->x->config.hidden, next = r->pass.layer->number + 1;
    qd_step s = {.p = &r->pass, .lane = lane, .worker = worker, .tile = tile};
    qd_code rc = QD_OK;
    QD_TRY(qd_lane_tick(lane, err));
    QD_TRY(qd_scratch_take(&lane->scratch, tile->n_rows, hidden, &s.x, err));
    QD_TRY(fetch_rows(r, lane, tile, s.x, err));
    QD_TRY(qd_lane_tick(lane, err)); /* a long sequence in fresh memory */
    QD_TRY(qd_layer_run(&s, err));
    QD_TRY(store_rows(r, lane, tile, s.x, err));
    if (next < r->x->config.n_layers) QD_TRY(see_hidden(r, lane, next, tile, s.x, err));
    if (r->hooks->on_tile_end != NULL) rc = r->hooks->on_tile_end(r->hooks->ctx, tile->number, worker, err);
out:
    if (rc != QD_OK && r->hooks->on_failure != NULL) r->hooks->on_failure(r->hooks->ctx);
    qd_scratch_back(&lane->scratch, mark);
    return rc;
}

static qd_code head_rows(const run *r, const qd_step *s, uint64_t first, uint64_t rows, qd_err *err)
{
    qd_scratch_mark mark = qd_scratch_here(&s->lane->scratch);
    uint64_t hidden = r->x->config.hidden, vocab = r->x->config.vocab;
    const float *in = NULL, *seen = NULL;
    float *logits = NULL, *copy = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_scratch_take(&s->lane->scratch, rows, vocab, &logits, err));
    QD_TRY(qd_step_see(s, QD_SITE_HEAD, -1, s->x + first * hidden, rows, hidden, &in, err));
    QD_TRY(r->ops->linear(s->lane, in, rows, hidden, &r->head.w, logits, vocab, err));
    QD_TRY(qd_lane_see(s->lane, logits, rows * vocab, &seen, &copy, err));
    QD_TRY(r->hooks->on_logits(r->hooks->ctx, s->tile->first_row + first, rows, seen, err));
out:
    qd_free(copy);
    qd_scratch_back(&s->lane->scratch, mark);
    return rc;
}

static qd_code final_norm(const run *r, const qd_single *norm, qd_lane *lane, const qd_token_tile *tile, float *x,
                          qd_err *err)
{
    const qd_model_config *m = &r->x->config;
    qd_code rc = fetch_rows(r, lane, tile, x, err);
    if (rc != QD_OK) return rc;
    r->ops->rms_norm(lane, x, m->hidden, tile->n_rows, 1, 0, m->hidden, qd_weight_values(&norm->w),
                     m->norm_plus_one ? QD_NORM_PLUS_ONE : QD_NORM_PLAIN, m->eps, x, m->hidden, 0);
    return QD_OK;
}

static qd_code last_tile(void *arg, qd_lane *lane, unsigned worker, const qd_token_tile *tile, qd_err *err)
{
    const run *r = arg;
    const qd_model_config *m = &r->x->config;
    qd_scratch_mark mark = qd_scratch_here(&lane->scratch);
    qd_step s = {.p = &r->pass, .lane = lane, .worker = worker, .tile = tile};
    uint64_t step = qd_logits_rows(m);
    qd_code rc = QD_OK;
    QD_TRY(qd_lane_tick(lane, err));
    QD_TRY(qd_scratch_take(&lane->scratch, tile->n_rows, m->hidden, &s.x, err));
    QD_TRY(final_norm(r, &r->norm, lane, tile, s.x, err));
    QD_TRY(see_hidden(r, lane, m->n_layers, tile, s.x, err));
    for (uint64_t i = 0; r->hooks->on_logits != NULL && i < tile->n_rows; i += step)
        QD_TRY(head_rows(r, &s, i, qd_min_u64(step, tile->n_rows - i), err));
out:
    qd_scratch_back(&lane->scratch, mark);
    return rc;
}

static void sample_memory(run *r)
{
    uint64_t now = qd_mono_ns();
    if (now - r->sampled_ns < TELL_NS) return;
    r->sampled_ns = now;
    r->peak_bytes = qd_max_u64(r->peak_bytes, qd_rss_anon_bytes());
}

static void progress(void *ctx, uint64_t done)
{
    run *r = ctx;
    sample_memory(r);
    if (r->hooks->on_progress != NULL)
        r->hooks->on_progress(r->hooks->ctx, r->layer, r->x->config.n_layers, done, r->tiles.n_tiles,
                              atomic_load(&r->tiles.n_ticks));
}

static void on_tasks(void *ctx, uint64_t n_ticks)
{
    run *r = ctx;
    uint64_t now = qd_mono_ns();
    (void)atomic_fetch_add(&r->tiles.n_ticks, n_ticks - r->task_ticks);
    r->task_ticks = n_ticks;
    qd_tiles_note_gap(&r->tiles);
    if (now - r->told_ns < TELL_NS) return; /* tensors may be small and many */
    r->told_ns = now;
    progress(r, 0);
}

static qd_code run_layer(run *r, uint64_t number, qd_forward_stats *stats, qd_err *err)
{
    qd_layer layer = {0};
    uint64_t begin = qd_mono_ns();
    qd_code rc = QD_OK;
    r->layer = number;
    progress(r, 0);
    QD_TRY(qd_layer_load(r->x, number, r->ops, r->o->bf16, &r->tasks, &layer, err));
    if (r->hooks->on_weights != NULL) QD_TRY(r->hooks->on_weights(r->hooks->ctx, &layer, &r->tasks, err));
    QD_TRY(qd_layer_pack(&layer, r->o->bf16, &r->tasks, err));
    uint64_t loaded = qd_mono_ns();
    r->pass.layer = &layer;
    rc = qd_tiles_run(&r->tiles, layer_tile, r, progress, r, err);
    r->sampled_ns = 0; /* with the layer and all scratch there */
    sample_memory(r);
    r->pass.layer = NULL;
    stats->load_s += (double)(loaded - begin) * 1e-9;
    stats->run_s += (double)(qd_mono_ns() - loaded) * 1e-9;
out:
    qd_layer_done(&layer);
    return rc;
}

static qd_code run_all(run *r, qd_forward_stats *stats, qd_err *err)
{
    const qd_model_config *m = &r->x->config;
    qd_code rc = QD_OK;
    QD_TRY(qd_tiles_run(&r->tiles, embed_tile, r, progress, r, err));
    for (uint64_t i = 0; i < m->n_layers; i++) QD_TRY(run_layer(r, i, stats, err));
    if (r->hooks->on_hidden == NULL && r->hooks->on_logits == NULL) goto out;
    r->layer = m->n_layers;
    uint64_t begin = qd_mono_ns();
    QD_TRY(qd_single_load(r->x, r->x->norm, true, r->ops, r->o->bf16, &r->tasks, &r->norm, err));
    if (r->hooks->on_logits != NULL)
        QD_TRY(qd_single_load(r->x, r->x->head, false, r->ops, r->o->bf16, &r->tasks, &r->head, err));
    uint64_t loaded = qd_mono_ns();
    rc = qd_tiles_run(&r->tiles, last_tile, r, progress, r, err);
    stats->load_s += (double)(loaded - begin) * 1e-9;
    stats->run_s += (double)(qd_mono_ns() - loaded) * 1e-9;
out:
    return rc;
}

void qd_forward_numerics(const qd_ops *ops, char *ret)
{
    char device[QD_NUMERICS_BYTES];
    if (ops == NULL) ops = qd_ops_host(NULL);
    ops->numerics(ops, device);
    (void)snprintf(ret, QD_FORWARD_NUMERICS_BYTES, "%s tiles-%d-%d", device, QD_TILE_ROWS, QD_TILE_ROWS_EXPERTS);
}

static void close_run(run *r)
{
    qd_tiles_done(&r->tiles);
    qd_single_done(&r->norm);
    qd_single_done(&r->head);
    qd_activations_done(&r->acts);
    qd_activations_done(&r->pass.kept);
    if (r->angles_there.packed != NULL) r->ops->weight_unpack(&r->angles_there);
    qd_free(r->angles);
}

/* *ret zeroed before; close_run() after, also where it fails. */
static qd_code open_run(run *ret, const qd_model_index *x, const qd_tokens *t, const qd_forward_opts *opts,
                        const qd_forward_hooks *hooks, qd_err *err)
{
    run *r = ret;
    *r = (run){.x = x, .t = t, .o = opts, .hooks = hooks, .ops = opts->ops != NULL ? opts->ops : qd_ops_host(NULL)};
    uint64_t memory = opts->memory_bytes != 0 ? opts->memory_bytes : MEMORY_DEFAULT;
    unsigned n_threads = opts->n_threads != 0 ? opts->n_threads : qd_cpu_count();
    qd_lane lane = {.ops = r->ops, .bf16 = opts->bf16, .cancel = opts->cancel};
    qd_forward_memory need = {0};
    qd_code rc = QD_OK;
    r->tasks = (qd_tasks){.n_threads = n_threads, .cancel = opts->cancel, .tell = on_tasks, .ctx = r};
    r->pass = (qd_pass){.m = &x->config, .all_experts = opts->all_experts, .hooks = hooks};
    QD_TRY(check_tokens(r, err));
    qd_forward_measure(x, t, opts, hooks, &need);
    uint64_t n_lanes = qd_tiles_lanes(t, qd_tile_rows_max(&x->config), r->ops, n_threads);
    r->device_bytes = need.device_bytes + n_lanes * need.device_lane_bytes;
    QD_TRY(r->ops->reserve(r->ops, r->device_bytes, err));
    QD_TRY(make_angles(r, err));
    QD_TRY(qd_activations_open(opts->bf16 ? QD_BF16 : QD_F32, t->starts[t->n_seqs], x->config.hidden, memory,
                               opts->spill_dir, &r->acts, err));
    QD_TRY(qd_tiles_open(t, qd_tile_rows_max(&x->config), &lane, n_threads, &r->tiles, err));
out:
    return rc;
}

qd_code qd_forward_run(const qd_model_index *x, const qd_tokens *t, const qd_forward_opts *opts,
                       const qd_forward_hooks *hooks, qd_forward_stats *ret, qd_err *err)
{
    run r = {0};
    qd_forward_stats stats = {0};
    qd_code rc = QD_OK;
    QD_TRY(open_run(&r, x, t, opts, hooks, err));
    QD_TRY(run_all(&r, &stats, err));
    stats.flops = qd_tiles_flops(&r.tiles);
    stats.lane_bytes = qd_tiles_lane_bytes(&r.tiles);
    stats.longest_tick_gap_us = r.tiles.longest_gap_us;
    stats.spilled = r.acts.spilled;
    stats.peak_bytes = r.peak_bytes;
    stats.device_bytes = r.device_bytes;
    stats.device_peak_bytes = r.ops->memory_peak(r.ops);
    *ret = stats;
out:
    close_run(&r);
    return rc;
}

struct qd_stream {
    run r;
    qd_stage last; /* that ran; what o or down read of its layer is kept */
    uint64_t last_layer;
    qd_forward_opts opts;
    qd_forward_hooks hooks;
    qd_stream *other; /* whose logits are seen beside this one's */
    qd_logits_pair_fn fn;
    void *fn_ctx;
};

static qd_code open_kept(run *r, qd_err *err)
{
    const qd_model_config *m = &r->x->config;
    uint64_t rows = r->t->starts[r->t->n_seqs], cols = qd_max_u64(m->n_heads * m->head_dim, m->intermediate);
    if (rows * cols * sizeof(uint16_t) > r->o->memory_bytes) return QD_OK;
    return qd_activations_open(QD_BF16, rows, cols, r->o->memory_bytes, NULL, &r->pass.kept, err);
}

/* Whether the stage ends with an input that the next one begins with. */
static bool keeps(const qd_pass *p, const qd_layer *layer, qd_stage stage)
{
    if (p->kept.data == NULL) return false;
    return stage == QD_STAGE_MIXER_OUT ? !layer->kind.linear_attention : stage == QD_STAGE_MLP_DOWN && !layer->kind.moe;
}

qd_code qd_stream_open(const qd_model_index *x, const qd_tokens *t, const qd_forward_opts *opts,
                       const qd_forward_hooks *hooks, qd_stream **ret, qd_err *err)
{
    qd_stream *s = qd_calloc(1, sizeof *s);
    qd_code rc = QD_OK;
    if (s == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a stream");
    s->opts = *opts;
    s->hooks = *hooks;
    QD_TRY(open_run(&s->r, x, t, &s->opts, &s->hooks, err));
    if (s->opts.keep_inputs) QD_TRY(open_kept(&s->r, err));
    QD_TRY(qd_tiles_run(&s->r.tiles, embed_tile, &s->r, progress, &s->r, err));
    *ret = s;
    s = NULL;
out:
    qd_stream_free(s);
    return rc;
}

void qd_stream_free(qd_stream *s)
{
    if (s == NULL) return;
    close_run(&s->r);
    qd_free(s);
}

qd_code qd_stream_run(qd_stream *s, const qd_layer *layer, qd_stage stage, qd_err *err)
{
    qd_pass *p = &s->r.pass;
    qd_stage before = stage == QD_STAGE_MLP_IN ? QD_STAGE_MIXER_OUT : QD_STAGE_MLP_DOWN;
    p->resumes = (stage == QD_STAGE_MLP_IN || stage == QD_STAGE_MLP) && s->last == before &&
                 s->last_layer == layer->number && keeps(p, layer, before);
    p->keeps = keeps(p, layer, stage);
    s->last = stage;
    s->last_layer = layer->number;
    s->r.layer = layer->number;
    p->layer = layer;
    p->stage = stage;
    qd_code rc = qd_tiles_run(&s->r.tiles, layer_tile, &s->r, progress, &s->r, err);
    p->layer = NULL;
    return rc;
}

static qd_code pair_tile(void *arg, qd_lane *lane, unsigned worker, const qd_token_tile *tile, qd_err *err)
{
    qd_stream *s = arg;
    const run *r = &s->r;
    const qd_model_config *m = &r->x->config;
    qd_scratch_mark mark = qd_scratch_here(&lane->scratch);
    uint64_t step = qd_logits_rows(m), hidden = m->hidden;
    float *x[2] = {NULL}, *logits[2] = {NULL}, *copy[2] = {NULL};
    const float *seen[2] = {NULL};
    qd_code rc = QD_OK;
    (void)worker;
    for (int i = 0; i < 2; i++) {
        QD_TRY(qd_scratch_take(&lane->scratch, tile->n_rows, hidden, &x[i], err));
        QD_TRY(qd_scratch_take(&lane->scratch, qd_min_u64(step, tile->n_rows), m->vocab, &logits[i], err));
        QD_TRY(final_norm(i == 0 ? r : &s->other->r, &r->norm, lane, tile, x[i], err));
    }
    for (uint64_t at = 0; at < tile->n_rows; at += step) {
        uint64_t n = qd_min_u64(step, tile->n_rows - at);
        for (int i = 0; i < 2; i++) {
            qd_free(copy[i]);
            copy[i] = NULL;
            QD_TRY(r->ops->linear(lane, x[i] + at * hidden, n, hidden, &r->head.w, logits[i], m->vocab, err));
            QD_TRY(qd_lane_see(lane, logits[i], n * m->vocab, &seen[i], &copy[i], err));
        }
        QD_TRY(s->fn(s->fn_ctx, tile->first_row + at, n, seen[0], seen[1], err));
    }
out:
    for (int i = 0; i < 2; i++) qd_free(copy[i]);
    qd_scratch_back(&lane->scratch, mark);
    return rc;
}

qd_code qd_stream_logits(qd_stream *a, qd_stream *b, qd_logits_pair_fn fn, void *ctx, qd_err *err)
{
    run *r = &a->r;
    qd_code rc = QD_OK;
    a->other = b;
    a->fn = fn;
    a->fn_ctx = ctx;
    r->layer = r->x->config.n_layers;
    QD_TRY(qd_single_load(r->x, r->x->norm, true, r->ops, r->o->bf16, &r->tasks, &r->norm, err));
    QD_TRY(qd_single_load(r->x, r->x->head, false, r->ops, r->o->bf16, &r->tasks, &r->head, err));
    rc = qd_tiles_run(&r->tiles, pair_tile, a, progress, r, err);
out:
    return rc;
}

void qd_stream_add_stats(const qd_stream *s, qd_forward_stats *to)
{
    if (s == NULL) return;
    to->flops += qd_tiles_flops(&s->r.tiles);
    to->lane_bytes = qd_max_u64(to->lane_bytes, qd_tiles_lane_bytes(&s->r.tiles));
    to->spilled = to->spilled || s->r.acts.spilled;
}

uint64_t qd_stream_vocab(const qd_stream *s)
{
    return s->r.x->config.vocab;
}
