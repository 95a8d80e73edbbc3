/* layerwise_memory.c -- what the layer-by-layer pass takes beyond a plain calibration pass, from sizes alone. */
#include "base/mem.h"
#include "engine/hessian.h"
#include "engine/layerwise_streams.h"

enum {
    CHUNK_ROWS = 128, /* of a thread in group.c: weights, what they decode to, and GPTQ's three and a panel */
    ROWS_THERE = 512, /* the same where a device does GPTQ, which has its own three */
    SAMPLES = 128     /* tokens kept of each input */
};

void qd_layerwise_measure(qd_plan *p, const qd_model_config *m, uint64_t n_held_tokens)
{
    qd_plan_pass *pass = &p->pass;
    uint64_t cols = 0, expert_cols = 0, codes = 0, hidden = m->hidden;
    for (uint32_t u = 0; u < p->n_units; u++) { /* a unit is a site's, or nearly all of it */
        uint64_t elems = 0;
        if (p->units[u].kind != QD_UNIT_QUANTIZE) continue;
        for (uint32_t i = p->units[u].first_item; i < p->units[u].first_item + p->units[u].n_items; i++) {
            elems += p->items[i].rows * p->items[i].cols;
            cols = qd_max_u64(cols, p->items[i].cols);
            if (p->items[i].expert >= 0) expert_cols = qd_max_u64(expert_cols, p->items[i].cols);
        }
        codes = qd_max_u64(codes, elems / 2 + elems / QD_NVFP4_BLOCK);
    }
    uint64_t streams = 2 * n_held_tokens * hidden * sizeof(float), hessians = 0, factor = 0;
    if (p->method.gptq) {
        uint64_t kept = pass->n_tokens * cols * 2;
        streams += pass->n_tokens * hidden * 2 + (kept <= p->activation_bytes ? kept : 0);
        factor = cols * cols * sizeof(float);
        hessians = qd_hessian_bytes(cols) + (expert_cols != 0 ? p->activation_bytes : 0);
        if (p->method.correction > 0) {
            streams += qd_correction_bytes(p);
            factor *= 2;
            hessians += qd_hessian_bytes(2 * cols) - qd_hessian_bytes(cols);
            hessians += p->n_compute * QD_GRAM_ROWS * 2 * cols * sizeof(float); /* inputs and what they lack */
        }
    }
    uint64_t threads = p->n_compute * (CHUNK_ROWS * (5 * cols + 256) * sizeof(float) + CHUNK_ROWS * cols);
    if (p->method.gptq) threads += p->n_compute * 2 * QD_GRAM_ROWS * cols; /* inputs on their way to a Hessian */
    if (p->method.gptq && p->ops != NULL && !p->ops->on_host)
        threads = p->n_compute * ROWS_THERE * (2 * cols * sizeof(float) + cols);
    uint64_t samples = p->method.balance ? 4 * SAMPLES * cols * sizeof(float) : 0;
    if (streams > p->activation_bytes) {
        pass->spill_bytes += streams;
        streams = 0;
    }
    uint64_t more = streams + hessians + factor + threads + codes + samples;
    pass->observer_bytes += more - streams;
    pass->peak_bytes += more;
    p->peak_bytes = qd_max_u64(p->peak_bytes,
                               pass->peak_bytes + QD_FIXED_BYTES + p->arena.total_bytes + p->ckpt->arena.total_bytes);
    /* GPTQ's second set of vectors runs the mixer and the MLP twice where what they give is too much to keep. */
    pass->flop = pass->flop * (p->method.gptq ? 3 : 1) +
                 (pass->n_tokens != 0 ? 2 * pass->flop * (double)n_held_tokens / (double)pass->n_tokens : 0);
}
