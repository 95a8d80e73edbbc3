/* calibrate_plan.c -- what a calibration pass will take and do, for the plan. */
#include "base/mem.h"
#include "engine/calibrate.h"
#include "engine/layerwise.h"
#include "engine/rounded.h"

qd_forward_opts qd_calibrate_options(const qd_plan *p)
{
    const qd_ops *ops = p->ops;
    /* Integer products are exact where weights and inputs are rounded to NVFP4 on the way. */
    if (ops == NULL && p->recipe.arith != QD_SCALE_CT_EXACT) ops = qd_ops_calibration(false);
    return (qd_forward_opts){.ops = ops,
                             .bf16 = true,
                             .all_experts = p->recipe.arith == QD_SCALE_CT_EXACT,
                             .n_threads = p->n_compute,
                             .memory_bytes = p->activation_bytes};
}

static bool is_quantized(const qd_plan *p, uint32_t item)
{
    return p->units[p->items[item].unit].kind == QD_UNIT_QUANTIZE;
}

/* Bytes that the hooks take: each linear of a layer may have an input of its own. */
static uint64_t observer_bytes(const qd_plan *p, const qd_tokens *t, unsigned n_threads)
{
    uint64_t most = 0, cols = 0, in_layer = 0, longest = 2048; /* rows of a tile with experts, see calib/layer_run.h */
    for (uint64_t i = 0; i < t->n_seqs; i++) longest = qd_max_u64(longest, t->starts[i + 1] - t->starts[i]);
    for (uint32_t i = 0, layer = 0; i < p->n_items; i++) {
        const qd_unit *u = &p->units[p->items[i].unit];
        if (!is_quantized(p, i) || u->layer < 0) continue;
        if ((uint32_t)u->layer != layer) in_layer = 0; /* items are in the order of layers */
        layer = (uint32_t)u->layer;
        most = qd_max_u64(most, ++in_layer);
        cols = qd_max_u64(cols, p->items[i].cols);
    }
    uint64_t bits = qd_min_u64(longest, t->starts[t->n_seqs]) * cols / QD_NVFP4_BLOCK * sizeof(uint32_t);
    uint64_t errors = p->input_rule == QD_INPUT_MSE ? most * t->n_seqs * sizeof(qd_input_errors) : 0;
    return errors + n_threads * (most * QD_STATS_BINS * sizeof(uint64_t) + bits + QD_ROUND_BYTES);
}

/* Stands for the hook of a run: only that there is one is asked. */
static qd_code sees(void *ctx, const qd_site *site, float *replaced, bool *ret_replaced, qd_err *err)
{
    (void)ctx;
    (void)site;
    (void)replaced;
    (void)ret_replaced;
    (void)err;
    return QD_OK;
}

qd_code qd_calibrate_measure(qd_plan *p, const qd_job_tokens *tokens, qd_err *err)
{
    const qd_tokens t = qd_job_tokens_view(tokens);
    const qd_forward_opts opts = qd_calibrate_options(p);
    const qd_forward_hooks hooks = {.on_input = sees};
    qd_model_index x = {0};
    qd_plan_pass *pass = &p->pass;
    qd_code rc = qd_model_index_open(p->ckpt, &x, err);
    if (rc != QD_OK) return rc;
    uint64_t n_tokens = t.starts[t.n_seqs];
    *pass = (qd_plan_pass){
        .n_samples = t.n_seqs, .n_tokens = n_tokens, .n_threads = (unsigned)qd_min_u64(p->n_compute, t.n_seqs)};
    qd_forward_measure(&x, &t, &opts, &hooks, &pass->memory);
    pass->observer_bytes = observer_bytes(p, &t, pass->n_threads);
    uint64_t resident = pass->memory.activation_bytes;
    if (resident > p->activation_bytes) {
        pass->spill_bytes = resident;
        resident = 0;
    }
    pass->peak_bytes = pass->memory.layer_bytes + pass->n_threads * pass->memory.lane_bytes + pass->memory.angle_bytes +
                       pass->observer_bytes + resident + x.arena.total_bytes + n_tokens * sizeof *t.ids;
    p->peak_bytes = qd_max_u64(p->peak_bytes,
                               pass->peak_bytes + QD_FIXED_BYTES + p->arena.total_bytes + p->ckpt->arena.total_bytes);
    for (uint32_t i = 0; i < p->n_items; i++) {
        const qd_item *it = &p->items[i];
        double share = it->expert >= 0 && !opts.all_experts && x.config.n_experts != 0
                           ? (double)x.config.top_k / (double)x.config.n_experts
                           : 1.0;
        if (is_quantized(p, i)) pass->flop += 2.0 * (double)n_tokens * (double)(it->rows * it->cols) * share;
    }
    const qd_tokens held = qd_job_tokens_held(tokens);
    if (p->method.layerwise) qd_layerwise_measure(p, &x.config, held.starts[held.n_seqs]);
    if (p->device.memory_bytes != 0) rc = qd_plan_device(p, &x, held.starts[held.n_seqs], err);
    qd_model_index_done(&x);
    return rc;
}
