/* layerwise_device.c -- the layer-by-layer quantization on a device with memory of its own: that memory, lanes, and
 * what linears read, rounded and summed there. docs/gpu.md says what stays on the host. */
#include "base/mem.h"
#include "engine/layerwise_streams.h"
#include "engine/rounded.h"
#include "gpu/num.h"
#include "gpu/solver.h"

#include <stdlib.h>

enum {
    ALIGN_BYTES = 256,     /* of pieces of a device's memory */
    PAIR_BYTES = 64 << 20, /* of a lane: logits of the second of two streams */
    SLACK_BYTES = 4 << 20, /* of a lane: blocks of scratch that are not filled */
    ROWS_THERE = 512,      /* as group_inside.h has them */
    STAGES = QD_STAGE_MLP + 1
};

const qd_ops *qd_layerwise_ops(const qd_run *run)
{
    const qd_ops *ops = run->plan->ops;
    return ops != NULL && (!ops->on_host || ops == qd_ops_host("cpu-bf16")) ? ops : qd_ops_calibration(false);
}

/* The most that Hessians and the factor beside them take in one stage of a layer; *ret_widest: channels of the widest.
 */
static uint64_t hessian_bytes(const qd_layerwise *l, uint64_t *ret_widest)
{
    uint64_t most = 0, widest = 0;
    for (uint32_t i = 0; i < l->run->plan->n_layers; i++) {
        uint64_t stage[STAGES] = {0}, shared = 0;
        for (uint32_t s = l->sites.layer_first[i]; s < l->sites.layer_first[i + 1]; s++) {
            const qd_input_site *x = &l->sites.sites[s];
            const uint64_t n = x->n_channels, bytes = n * n * sizeof(float) + ALIGN_BYTES;
            widest = qd_max_u64(widest, n);
            if (x->kind == QD_SITE_EXPERT_IN)
                shared = bytes; /* one for all */
            else
                stage[qd_layerwise_stage_of(x->kind)] += bytes;
        }
        stage[QD_STAGE_MLP_IN] += shared;
        for (int k = 0; k < STAGES; k++) most = qd_max_u64(most, stage[k]);
    }
    *ret_widest = widest;
    return most + widest * (widest + 1) * sizeof(float) + 2 * ALIGN_BYTES;
}

/* What GPTQ takes there: lanes, Hessians, a factor. */
static qd_code solver_bytes(const qd_layerwise *l, uint64_t *ret, qd_err *err)
{
    const qd_ops *ops = qd_layerwise_ops(l->run);
    uint64_t widest = 0, room = 0, lane = ops->lane_bytes + SLACK_BYTES;
    qd_code rc = QD_OK;
    *ret = l->n_lanes * lane;
    if (!l->run->plan->method.gptq) return QD_OK;
    *ret += hessian_bytes(l, &widest);
    if (widest != 0) QD_TRY(ops->solver->room(ops, widest, &room, err));
    *ret += room + l->n_lanes * qd_gptq_bytes_there(widest, ROWS_THERE);
out:
    return rc;
}

qd_code qd_layerwise_reserve(qd_layerwise *l, const qd_layerwise_pass *passes, unsigned n, qd_err *err)
{
    const qd_ops *ops = qd_layerwise_ops(l->run);
    uint64_t all = 0, weights = 0;
    qd_code rc = QD_OK;
    if (ops->on_host) return QD_OK;
    for (unsigned i = 0; i < n; i++) {
        const qd_layerwise_pass *p = &passes[i];
        qd_forward_memory need = {0};
        qd_forward_measure(&l->index, p->tokens, &p->opts, &p->hooks, &need);
        weights = qd_max_u64(weights, need.device_bytes - need.angle_bytes); /* of one layer, or the head */
        all += need.angle_bytes + ALIGN_BYTES +
               l->n_lanes * (need.device_lane_bytes + (p->hooks.on_logits != NULL ? PAIR_BYTES : 0));
    }
    all += weights;
    QD_TRY(solver_bytes(l, &weights, err));
    l->stats.device_bytes = all + weights;
    rc = ops->reserve(ops, l->stats.device_bytes, err);
out:
    return rc;
}

qd_code qd_layerwise_lanes_open(qd_layerwise *l, qd_err *err)
{
    const qd_ops *ops = qd_layerwise_ops(l->run);
    qd_code rc = QD_OK;
    l->lanes = qd_calloc(l->n_lanes, sizeof *l->lanes);
    l->lane_locks = qd_calloc(l->n_lanes, sizeof *l->lane_locks);
    if (l->lanes == NULL || l->lane_locks == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for workers");
    for (; l->n_lanes_open < l->n_lanes; l->n_lanes_open++) {
        qd_lane *lane = &l->lanes[l->n_lanes_open];
        *lane = (qd_lane){.ops = ops, .cancel = l->o->cancel, .n_ticks = &l->n_ticks};
        QD_TRY(qd_lane_open(lane, err));
        (void)pthread_mutex_init(&l->lane_locks[l->n_lanes_open], NULL);
    }
out:
    return rc;
}

void qd_layerwise_lanes_close(qd_layerwise *l)
{
    for (unsigned i = 0; i < l->n_lanes_open; i++) {
        qd_lane_close(&l->lanes[i]);
        (void)pthread_mutex_destroy(&l->lane_locks[i]);
    }
    qd_free(l->lanes);
    qd_free(l->lane_locks);
}

qd_code qd_layerwise_vectors_again(const qd_layer_work *w, qd_err *err)
{
    static const qd_slot changes[] = {QD_IN_NORM, QD_POST_NORM};
    const qd_ops *ops = w->layer->ops;
    for (size_t i = 0; !ops->on_host && i < sizeof changes / sizeof changes[0]; i++) {
        qd_weight *x = &w->layer->w[changes[i]];
        if (x->data == NULL) continue;
        if (x->packed != NULL) ops->weight_unpack(x);
        qd_code rc = ops->weight_pack(ops, x, true, w->tasks, err);
        if (rc != QD_OK) return rc;
    }
    return QD_OK;
}

qd_code qd_layerwise_round_there(const qd_site *at, float *y, float *ret_amax, qd_err *err)
{
    const qd_ops *ops = at->lane->ops;
    const qd_scratch_mark mark = qd_scratch_here(&at->lane->scratch);
    const uint64_t n_blocks = at->rows * (at->cols / QD_NVFP4_BLOCK);
    uint32_t *bits = qd_malloc(n_blocks * sizeof *bits), *bits_there = NULL, most = 0;
    float *p = NULL;
    qd_code rc = QD_OK;
    _Static_assert(sizeof *p == sizeof *bits, "scratch is in floats");
    if (bits == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for inputs");
    QD_TRY(qd_scratch_take(&at->lane->scratch, 1, n_blocks, &p, err));
    bits_there = (uint32_t *)(void *)p;
    ops->block_amax(at->lane, at->x, n_blocks, bits_there);
    QD_TRY(ops->download(at->lane, QD_F32, p, n_blocks, bits, err));
    for (uint64_t b = 0; b < n_blocks; b++) most = bits[b] > most ? bits[b] : most;
    const float gs = qd_round_scale(bits, n_blocks);
    if (gs > 0)
        ops->fake_quant(at->lane, gs, bits_there, at->x, n_blocks, y);
    else
        ops->copy(at->lane, at->x, at->cols, 0, at->rows, 1, at->cols, y, at->cols, 0);
    *ret_amax = qd_bits_f32(most);
out:
    qd_scratch_back(&at->lane->scratch, mark);
    qd_free(bits);
    return rc;
}
