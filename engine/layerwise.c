#include "engine/layerwise.h"

#include "base/clock.h"
#include "base/mem.h"
#include "engine/layerwise_streams.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    EXPERT_PRIOR = 256,
    CHECK_ELEMS = 1 << 22 /* weights that are looked at between two ticks */
};

static void tell(const qd_layerwise *l, qd_note_level level, const char *text)
{
    if (l->o->events != NULL && l->o->events->note != NULL) l->o->events->note(l->o->events->ctx, level, text);
}

/* Every unit of the layer's linears, and the journal's line that ends it. */
static bool is_finished(const qd_run *run, uint32_t layer)
{
    const qd_plan *p = run->plan;
    for (uint32_t u = 0; u < p->n_units; u++)
        if (p->units[u].kind == QD_UNIT_QUANTIZE && p->units[u].layer == (int32_t)layer && !run->unit_done[u])
            return false;
    return run->layer_inputs[layer];
}

/* What is done of a layer that is not finished is done again: its linears depend on each other. */
static void begin_anew(qd_run *run, uint32_t layer)
{
    const qd_plan *p = run->plan;
    for (uint32_t u = 0; u < p->n_units; u++)
        if (p->units[u].layer == (int32_t)layer) run->unit_done[u] = false;
}

static void set_input(qd_run *run, const qd_input_site *s, float amax)
{
    for (uint32_t i = 0; i < s->n_items; i++) {
        qd_item_result *r = &run->result[s->items[i]];
        r->input_amax = amax;
        r->input_gs = qd_input_global(&run->plan->recipe, QD_BF16, amax);
    }
}

/* A site's linears in the device's form once more: coarse ones for the source's tokens, the others when they are
 * quantized. */
static qd_code pack_again(qd_layer_work *w, uint32_t site, bool coarse, qd_err *err)
{
    const qd_input_site *s = &w->sites[site];
    const qd_ops *ops = w->layer->ops;
    if (coarse && !ops->on_host) return QD_OK; /* a device has but one form */
    if (ops == qd_ops_calibration(false)) ops = qd_ops_calibration(coarse);
    for (uint32_t i = 0; i < s->n_items; i++) {
        qd_weight *x = qd_work_weight(w, s->items[i]);
        if (x->packed != NULL) ops->weight_unpack(x);
        qd_code rc = ops->weight_pack(ops, x, true, w->tasks, err);
        if (rc != QD_OK) return rc;
    }
    return QD_OK;
}

/* What goes into a site, as far as the pass over the quantized model has seen it; else as the source has it. */
static float amax_of(const qd_layerwise *l, uint32_t site)
{
    const qd_site_seen *seen = l->seen != NULL ? &l->seen[site] : NULL;
    float amax = 0;
    if (seen == NULL || seen->amax == NULL || l->work->sites[site].expert >= 0 || !l->run->plan->info.input_scales)
        return l->work->moments[site].n_channels != 0 ? qd_work_amax(l->work, site) : 0;
    for (unsigned i = 0; i < l->n_workers; i++)
        if (!(seen->amax[i] <= amax)) amax = seen->amax[i];
    return amax;
}

static qd_code know_input(qd_layerwise *l, uint32_t site, qd_err *err)
{
    const qd_input_site *s = &l->work->sites[site];
    float amax = amax_of(l, site);
    if (!isfinite(amax))
        return qd_fail(err, QD_E_INPUT, "%s: its input holds a value that is not finite: the quantized model overflows",
                       l->run->plan->items[s->items[0]].name);
    set_input(l->run, s, amax);
    return QD_OK;
}

static qd_code quantize_site(qd_layerwise *l, uint32_t site, const qd_gptq_factor *factor, const float *correction,
                             qd_err *err)
{
    qd_code rc = know_input(l, site, err);
    if (rc == QD_OK) rc = qd_group_quantize(l->work, site, factor, correction, &l->tasks, l->lanes, err);
    return rc == QD_OK ? pack_again(l->work, site, false, err) : rc;
}

/* An expert that saw few tokens knows little of what goes with what: as if it had seen EXPERT_PRIOR tokens more, whose
 * channels have nothing to do with each other. */
static float damp_of(const qd_layerwise *l, uint32_t site)
{
    float damp = l->run->plan->method.damp;
    uint64_t n = l->work->sites[site].kind == QD_SITE_EXPERT_DOWN ? l->work->moments[site].n_tokens : 0;
    return n != 0 ? damp + (float)EXPERT_PRIOR / (float)n : damp;
}

/* The factor of a site's Hessian and its correction, if any; empty where there is none, which is counted where there
 * should be one. */
static qd_code factor_of(qd_layerwise *l, uint32_t site, uint32_t from, qd_gptq_factor *ret, float **correction,
                         qd_err *err)
{
    bool ok = false;
    if (l->seen == NULL || l->seen[from].hessian == NULL) return QD_OK;
    const qd_hessian *h = l->seen[from].hessian;
    const uint64_t n = l->work->sites[site].n_channels;
    qd_code rc = h->memory != NULL ? qd_gptq_factor_there(&l->lanes[0], h->tile[0], n, damp_of(l, site), ret, &ok, err)
                                   : qd_gptq_factor_make(&l->tasks, l->lanes, h, qd_hessian_element, n,
                                                         damp_of(l, site), ret, &ok, err);
    if (rc == QD_OK && ok && qd_corrects(l, site)) rc = qd_correction_make(l, h, ret, correction, err);
    qd_hessian_free(l->seen[from].hessian); /* the factor is larger */
    l->seen[from].hessian = NULL;
    if (rc == QD_OK && !ok && l->work->moments[site].n_tokens != 0) l->work->n_unfactored++;
    return rc;
}

/* Experts in a gang, sites [first, end): each is one rank's, and a rank has one of each round. shared: the factor of
 * all; without one each has its own, which nobody else needs. */
static qd_code quantize_experts(qd_layerwise *l, uint32_t first, uint32_t end, const qd_gptq_factor *shared,
                                qd_err *err)
{
    qd_gang *gang = l->run->gang;
    qd_layer_work *w = l->work;
    const uint32_t rank = qd_gang_rank(gang), before = w->n_unfactored;
    qd_gptq_factor own = {0};
    int64_t n_unfactored = 0;
    qd_code rc = QD_OK;
    for (uint32_t at = first, n = 0; at < end; at += n) {
        n = (uint32_t)qd_min_u64(qd_gang_size(gang), end - at);
        for (uint32_t s = at; s < at + n; s++) QD_TRY(know_input(l, s, err));
        if (shared == NULL && rank < n) QD_TRY(factor_of(l, at + rank, at + rank, &own, NULL, err));
        const qd_gptq_factor *f = shared != NULL ? shared : &own;
        QD_TRY(qd_group_quantize_whole(w, at, n, f->l != NULL ? f : NULL, &l->tasks, l->lanes, err));
        qd_gptq_factor_done(&own);
        for (uint32_t s = at; s < at + n; s++) QD_TRY(pack_again(w, s, false, err));
    }
    n_unfactored = w->n_unfactored - before;
    QD_TRY(qd_gang_sum_i64(gang, &n_unfactored, 1, err));
    w->n_unfactored = before + (uint32_t)n_unfactored;
out:
    qd_gptq_factor_done(&own);
    return rc;
}

/* The sites of a stage, or of all. All experts' gate and up have one factor. */
static qd_code quantize_stage(qd_layerwise *l, qd_stage stage, qd_err *err)
{
    const qd_layer_work *w = l->work;
    qd_gptq_factor factor = {0}, experts = {0};
    float *correction = NULL;
    qd_code rc = QD_OK;
    for (uint32_t s = 0, next = 0; s < w->n_sites; s = next) {
        bool shared = w->sites[s].kind == QD_SITE_EXPERT_IN;
        qd_gptq_factor *f = shared ? &experts : &factor;
        next = s + 1;
        if (stage != QD_STAGE_ALL && qd_layerwise_stage_of(w->sites[s].kind) != stage) continue;
        if (qd_layerwise_owner(l, s) != QD_NONE) {
            while (next < w->n_sites && w->sites[next].kind == w->sites[s].kind) next++;
            if (shared) QD_TRY(factor_of(l, s, w->n_sites, f, NULL, err));
            QD_TRY(quantize_experts(l, s, next, shared ? f : NULL, err));
            continue;
        }
        if (f->l == NULL) QD_TRY(factor_of(l, s, shared ? w->n_sites : s, f, &correction, err));
        QD_TRY(quantize_site(l, s, f->l != NULL ? f : NULL, correction, err));
        qd_gptq_factor_done(&factor);
        qd_free(correction);
        correction = NULL;
    }
out:
    qd_free(correction);
    qd_gptq_factor_done(&factor);
    qd_gptq_factor_done(&experts);
    return rc;
}

/* Each linear on what those before it, quantized, give. */
static qd_code by_stages(qd_layerwise *l, qd_err *err)
{
    static const qd_stage stages[] = {QD_STAGE_MIXER_IN, QD_STAGE_MIXER_OUT, QD_STAGE_MLP_IN, QD_STAGE_MLP_DOWN};
    const qd_layer_work *w = l->work;
    qd_code rc = QD_OK;
    for (size_t i = 0; i < sizeof stages / sizeof stages[0]; i++, l->piece++) {
        bool any = stages[i] == QD_STAGE_MLP_IN; /* it moves the hidden vectors */
        for (uint32_t s = 0; s < w->n_sites; s++) any = any || qd_layerwise_stage_of(w->sites[s].kind) == stages[i];
        if (!any) continue;
        QD_TRY(qd_layerwise_stage(l, stages[i], err));
        QD_TRY(quantize_stage(l, stages[i], err));
        qd_layerwise_forget(l);
    }
    QD_TRY(qd_stream_run(l->quantized, w->layer, QD_STAGE_MLP, err));
out:
    qd_layerwise_forget(l);
    return rc;
}

static qd_code quantize_layer(qd_layerwise *l, qd_err *err)
{
    const qd_plan *p = l->run->plan;
    qd_layer_work *w = l->work;
    char text[160];
    qd_code rc = QD_OK;
    begin_anew(l->run, (uint32_t)w->layer->number);
    if (p->method.balance) {
        QD_TRY(qd_balance_layer(w, err));
        QD_TRY(qd_layerwise_vectors_again(w, err));
    }
    qd_layerwise_cache_set(l);
    QD_TRY(p->method.gptq ? by_stages(l, err) : quantize_stage(l, QD_STAGE_ALL, err));
    QD_TRY(qd_changed_write(w, err));
    QD_TRY(qd_journal_add_inputs(w->journal, l->run, (uint32_t)w->layer->number, err));
    l->run->layer_inputs[w->layer->number] = true;
    if (w->n_unfactored != 0) {
        (void)snprintf(text, sizeof text,
                       "layer %u: %u inputs have no Hessian that can be factored: rounded to nearest",
                       (unsigned)w->layer->number, w->n_unfactored);
        tell(l, QD_NOTE_WARN, text);
    }
    if (w->loss_rtn > 0) {
        l->run->layer_error[w->layer->number] = (float)sqrt(w->loss / w->loss_rtn);
        (void)snprintf(text, sizeof text, "layer %u: output error %.3f of rounding to nearest",
                       (unsigned)w->layer->number, (double)l->run->layer_error[w->layer->number]);
        tell(l, QD_NOTE_INFO, text);
    }
out:
    return rc;
}

static qd_code begin_work(qd_layerwise *l, qd_layer *layer, qd_layer_work *w, qd_err *err)
{
    const qd_plan *p = l->run->plan;
    uint32_t number = (uint32_t)layer->number, first = UINT32_MAX, end = 0;
    *w = (qd_layer_work){.run = l->run,
                         .journal = l->o->journal,
                         .index = &l->index,
                         .layer = layer,
                         .tasks = &l->tasks,
                         .n_lanes = l->n_lanes,
                         .lane_locks = l->lane_locks,
                         .sites = l->sites.sites + l->sites.layer_first[number],
                         .n_sites = l->sites.layer_first[number + 1] - l->sites.layer_first[number]};
    for (uint32_t s = 0; s < w->n_sites; s++)
        for (uint32_t i = 0; i < w->sites[s].n_items; i++) {
            uint32_t item = w->sites[s].items[i];
            first = item < first ? item : first;
            end = item + 1 > end ? item + 1 : end;
            if (qd_layer_weight(layer, &p->items[item]) == NULL)
                return qd_fail(err, QD_E_INTERNAL, "%s: not among the layer's weights", p->items[item].name);
        }
    w->first_item = w->n_sites != 0 ? first : 0;
    w->end_item = end;
    w->moments = qd_arena_alloc(&w->arena, (size_t)w->n_sites + 1, sizeof *w->moments);
    w->samples = qd_arena_alloc(&w->arena, (size_t)w->n_sites + 1, sizeof *w->samples);
    w->col = qd_arena_alloc(&w->arena, (size_t)w->n_sites + 1, sizeof *w->col);
    w->row = qd_arena_alloc(&w->arena, (size_t)(end - w->first_item) + 1, sizeof *w->row);
    if (w->moments == NULL || w->samples == NULL || w->col == NULL || w->row == NULL)
        return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a layer");
    return QD_OK;
}

/* A weight that is not finite is named before what it makes of the inputs. */
static qd_code check_weight(const qd_layer_work *w, uint32_t site, uint32_t item, qd_err *err)
{
    const qd_weight *x = qd_work_weight(w, item);
    qd_dev *dev = w->run->dev;
    const uint64_t n = x->n * x->k;
    float amax = 0, *row = NULL;
    bool finite = true;
    qd_code rc = QD_OK;
    for (uint64_t i = 0; i < n && finite; i += CHECK_ELEMS) {
        const unsigned char *at = (const unsigned char *)x->data + i * qd_dtype_bytes(x->dtype);
        rc = dev->ops->amax(dev, x->dtype, at, qd_min_u64(CHECK_ELEMS, n - i), &amax, &finite, err);
        if (rc == QD_OK) rc = qd_work_tick(w, err);
        if (rc != QD_OK) return rc;
    }
    if (finite) return QD_OK;
    row = qd_malloc(x->k * sizeof *row);
    if (row == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a row of weights");
    for (uint64_t r = 0; rc == QD_OK && r < x->n; r++) rc = qd_work_rows(w, site, item, r, 1, row, err);
    qd_free(row);
    return rc;
}

static qd_code check_weights(const qd_layer_work *w, qd_err *err)
{
    for (uint32_t s = 0; s < w->n_sites; s++)
        for (uint32_t i = 0; i < w->sites[s].n_items; i++) {
            qd_code rc = check_weight(w, s, w->sites[s].items[i], err);
            if (rc != QD_OK) return rc;
        }
    return QD_OK;
}

/* calib: whether the calibration tokens go through the layer: they do up to the last that is not finished. */
static qd_code do_layer(qd_layerwise *l, uint32_t number, bool calib, qd_err *err)
{
    qd_layer layer = {0};
    qd_layer_work work = {0};
    bool finished = is_finished(l->run, number);
    qd_code rc = QD_OK;
    l->piece = 0;
    qd_cancel_drains(l->o->cancel, !finished); /* a layer that is not finished would be lost */
    uint64_t start_ns = qd_mono_ns();
    QD_TRY(qd_layer_load(&l->index, number, qd_layerwise_ops(l->run), true, &l->tasks, &layer, err));
    QD_TRY(begin_work(l, &layer, &work, err));
    l->work = &work;
    for (uint32_t s = 0; calib && s < work.n_sites; s++) QD_TRY(pack_again(&work, s, true, err));
    QD_TRY(qd_layer_pack(&layer, true, &l->tasks, err));
    l->stats.load_s += qd_seconds_since(start_ns);
    QD_TRY(check_weights(&work, err));
    if (l->held_source != NULL) QD_TRY(qd_stream_run(l->held_source, &layer, QD_STAGE_ALL, err));
    if (calib) QD_TRY(qd_layerwise_observe(l, !finished, err));
    l->piece++;
    if (finished) {
        QD_TRY(qd_layer_restore(&work, l->o->staging, err));
        QD_TRY(qd_layerwise_vectors_again(&work, err));
        for (uint32_t s = 0; s < work.n_sites; s++) QD_TRY(pack_again(&work, s, false, err));
        if (calib && l->quantized != NULL) QD_TRY(qd_stream_run(l->quantized, &layer, QD_STAGE_ALL, err));
    } else {
        QD_TRY(quantize_layer(l, err));
    }
    if (l->held_quantized != NULL) QD_TRY(qd_stream_run(l->held_quantized, &layer, QD_STAGE_ALL, err));
out:
    qd_cancel_drains(l->o->cancel, false);
    qd_layerwise_cache_end(l);
    for (uint32_t s = 0; work.moments != NULL && s < work.n_sites; s++) qd_moments_done(&work.moments[s]);
    for (uint32_t s = 0; work.samples != NULL && s < work.n_sites; s++) qd_free(work.samples[s].rows);
    qd_arena_done(&work.arena);
    qd_layer_done(&layer);
    l->work = NULL;
    return rc;
}

static qd_code judge(qd_layerwise *l, qd_err *err)
{
    qd_job_quality *g = &l->run->quality;
    double max = l->run->plan->method.max_kl;
    char text[256];
    const uint64_t first = (uint64_t)(l->held.ids - l->o->held->ids);
    qd_code rc = qd_gate_measure(l->held_source, l->held_quantized, l->o->held, first, l->run->gang, g, err);
    if (rc != QD_OK) return rc;
    g->max_kl = max;
    (void)snprintf(text, sizeof text,
                   "quality on %llu held-back tokens: KL %.5f, same top token %.4f, perplexity %.3f (source %.3f)",
                   (unsigned long long)g->n_tokens, g->kl, g->top1, g->perplexity, g->source_perplexity);
    tell(l, QD_NOTE_INFO, text);
    if (max > 0 && !(g->kl <= max))
        return qd_fail(err, QD_E_QUALITY,
                       "quality gate: expected a KL divergence of at most %g on %llu held-back tokens, found %.5f "
                       "(same top token %.4f, perplexity %.3f, source %.3f)",
                       max, (unsigned long long)g->n_tokens, g->kl, g->top1, g->perplexity, g->source_perplexity);
    return QD_OK;
}

qd_code qd_layerwise_run(qd_run *run, const qd_layerwise_opts *o, qd_forward_stats *ret_stats, qd_err *err)
{
    const qd_plan *p = run->plan;
    uint32_t n_open = 0; /* layers up to the last that is not finished */
    qd_layerwise l = {.run = run, .o = o, .start_ns = qd_mono_ns(), .n_pieces = p->method.gptq ? 6 : 2};
    qd_code rc = QD_OK;
    for (uint32_t i = 0; i < p->n_layers; i++)
        if (!is_finished(run, i)) n_open = i + 1;
    if (n_open == 0 && o->held->n_seqs == 0) return QD_OK;
    bool calib = n_open != 0 && (p->method.gptq || p->method.balance || p->method.hessian_scale ||
                                 p->info.input_scales || p->info.kv_cache);
    QD_TRY(qd_layerwise_open(&l, calib, err));
    for (uint32_t i = 0; i < p->n_layers; i++, l.layers_done++) {
        QD_TRY(do_layer(&l, i, calib && i < n_open, err));
        if (qd_cancel_drain_asked(o->cancel) != 0) {
            rc = qd_fail(err, QD_E_CANCELED, "canceled");
            goto out;
        }
        if (i + 1 != n_open) continue;
        qd_layerwise_close_calib(&l);
    }
    if (o->held->n_seqs != 0) QD_TRY(judge(&l, err));
out:
    l.stats.device_peak_bytes = qd_layerwise_ops(run)->memory_peak(qd_layerwise_ops(run));
    qd_layerwise_close(&l);
    *ret_stats = l.stats;
    ret_stats->run_s = qd_seconds_since(l.start_ns) - l.stats.load_s;
    return rc;
}
