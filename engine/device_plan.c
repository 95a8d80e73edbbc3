/* device_plan.c -- sizes of a job's parts on a GPU, from a plan. */
#include "base/mem.h"
#include "engine/device_memory.h"
#include "engine/layerwise_streams.h"
#include "engine/plan.h"
#include "engine/sites.h"

#include <string.h>

enum {
    PANEL_COLS = 128, /* of GPTQ: the block of columns between two products */
    MOMENT_BYTES = 24 /* of a channel: a sum in fixed point, the largest magnitude */
};

#define SOLVE_COPIES 2 /* of a panel: what is rounded, and its errors */

static uint64_t square(uint64_t n)
{
    return n * n * sizeof(float);
}

/* Hessians of one layer: those of a stage are there together. */
static void layer_hessians(const qd_input_sites *s, uint32_t layer, qd_device_need *need)
{
    uint64_t stage[QD_STAGE_MLP + 1] = {0}, experts = 0, all_tokens = 0;
    for (uint32_t i = s->layer_first[layer]; i < s->layer_first[layer + 1]; i++) {
        const qd_input_site *site = &s->sites[i];
        uint64_t bytes = square(site->n_channels);
        if (site->kind == QD_SITE_EXPERT_DOWN)
            experts += bytes;
        else if (site->kind == QD_SITE_EXPERT_IN)
            all_tokens = qd_max_u64(all_tokens, bytes); /* they share one */
        else
            stage[qd_layerwise_stage_of(site->kind)] += bytes;
        if (site->kind != QD_SITE_EXPERT_DOWN) need->factor = qd_max_u64(need->factor, bytes);
    }
    stage[QD_STAGE_MLP_IN] += all_tokens;
    for (int i = 0; i <= QD_STAGE_MLP; i++) need->hessians = qd_max_u64(need->hessians, stage[i]);
    need->expert_hessians = qd_max_u64(need->expert_hessians, experts);
}

static uint64_t layer_moments(const qd_input_sites *s, uint32_t layer)
{
    uint64_t sum = 0;
    for (uint32_t i = s->layer_first[layer]; i < s->layer_first[layer + 1]; i++)
        sum += s->sites[i].n_channels * (uint64_t)MOMENT_BYTES;
    return sum;
}

/* A fused set is encoded together, a linear of it solved at a time. */
static void largest_set(const qd_plan *p, qd_device_need *need)
{
    for (uint32_t u = 0; u < p->n_units; u++) {
        if (p->units[u].kind != QD_UNIT_QUANTIZE) continue;
        uint64_t elems = 0;
        for (uint32_t i = p->units[u].first_item; i < p->units[u].first_item + p->units[u].n_items; i++) {
            const qd_item *it = &p->items[i];
            elems += it->rows * it->cols;
            if (p->method.gptq)
                need->solve =
                    qd_max_u64(need->solve, it->rows * (it->cols + SOLVE_COPIES * PANEL_COLS) * sizeof(float));
        }
        need->codes = qd_max_u64(need->codes, elems / 2 + elems / QD_NVFP4_BLOCK);
    }
}

static void streams(const qd_plan *p, uint64_t hidden, uint64_t n_held_tokens, qd_device_need *need)
{
    uint64_t calib = p->pass.n_tokens * hidden * 2, held = n_held_tokens * hidden * sizeof(float);
    bool gate = p->method.layerwise && n_held_tokens != 0;
    need->stream[QD_STREAM_SOURCE] = calib;
    need->stream[QD_STREAM_QUANTIZED] = p->method.gptq ? calib : 0;
    need->stream[QD_STREAM_HELD_SOURCE] = need->stream[QD_STREAM_HELD_QUANTIZED] = gate ? held : 0;
}

qd_code qd_plan_device(qd_plan *p, const qd_model_index *x, uint64_t n_held_tokens, qd_err *err)
{
    /* Data-free tiles stage through the same buffers: what they take is the host's slots. */
    qd_device_need need = {.host = p->peak_bytes};
    qd_arena arena = {0};
    qd_input_sites sites = {0};
    qd_code rc = QD_OK;
    largest_set(p, &need);
    if (x != NULL) {
        const qd_plan_pass *pass = &p->pass;
        uint64_t fixed = QD_FIXED_BYTES + p->arena.total_bytes + p->ckpt->arena.total_bytes;
        QD_TRY(qd_input_sites_make(p, x, &arena, &sites, err));
        need.host = fixed + x->arena.total_bytes + (pass->n_tokens + n_held_tokens) * sizeof(int32_t) +
                    p->n_slots * p->slot_bytes + p->n_workers * p->worker_bytes;
        need.layer = pass->memory.weight_bytes;
        need.lane = pass->memory.lane_bytes;
        need.angles = pass->memory.angle_bytes;
        for (uint32_t l = 0; l < p->n_layers; l++) {
            need.moments = qd_max_u64(need.moments, layer_moments(&sites, l));
            if (p->method.gptq) layer_hessians(&sites, l, &need);
        }
        if (n_held_tokens != 0 && p->method.layerwise) need.head = x->config.vocab * x->config.hidden * 2;
        streams(p, x->config.hidden, n_held_tokens, &need);
    }
    p->device.host_memory_bytes = p->host_memory_bytes;
    QD_TRY(qd_device_place(&need, &p->device, err));
    p->peak_bytes = p->device.host_peak_bytes;
    p->pass.spill_bytes = p->device.activation_bytes[QD_ON_DISK];
out:
    qd_arena_done(&arena);
    return rc;
}
