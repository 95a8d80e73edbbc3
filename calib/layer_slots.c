/* layer_slots.c -- the tensors of a layer that config.json asks for, and their sizes. */
#include "calib/layer_slots.h"

const qd_slot_shape qd_slot_shapes[QD_SLOT_COUNT] = {
#define X(slot, suffix, rows, cols) [slot] = {suffix, QD_DIM_##rows, QD_DIM_##cols},
    QD_SLOTS(X)
#undef X
};

/* Products of sizes that model_config.c keeps below 2^24 each, so they fit. */
void qd_dims_fill(const qd_model_config *m, uint64_t d[QD_DIM_COUNT])
{
    uint64_t key = m->k_heads * m->k_dim, value = m->v_heads * m->v_dim;
    d[QD_DIM_ONE] = d[QD_DIM_ROW] = 1;
    d[QD_DIM_HIDDEN] = m->hidden;
    d[QD_DIM_Q] = m->n_heads * m->head_dim;
    d[QD_DIM_Q_GATE] = d[QD_DIM_Q] * (m->attention_gate ? 2 : 1);
    d[QD_DIM_KV] = m->n_kv_heads * m->head_dim;
    d[QD_DIM_HEAD] = m->head_dim;
    d[QD_DIM_D_QKV] = 2 * key + value;
    d[QD_DIM_D_VALUE] = value;
    d[QD_DIM_D_QKVZ] = 2 * key + 2 * value;
    d[QD_DIM_D_HEADS] = m->v_heads;
    d[QD_DIM_D_BA] = 2 * m->v_heads;
    d[QD_DIM_D_CONV] = d[QD_DIM_D_QKV] * m->conv_taps;
    d[QD_DIM_D_V] = m->v_dim;
    d[QD_DIM_INTER] = m->intermediate;
    d[QD_DIM_S_INTER] = m->shared_intermediate;
    d[QD_DIM_EXPERTS] = m->n_experts;
    d[QD_DIM_E_GATE_UP] = m->n_experts * 2 * m->expert_intermediate;
    d[QD_DIM_E_HIDDEN] = m->n_experts * m->hidden;
    d[QD_DIM_E_INTER] = m->expert_intermediate;
}

bool qd_slot_needed(const qd_model_config *m, const qd_layer_kind *k, qd_slot s)
{
    switch (s) {
    case QD_IN_NORM:
    case QD_POST_NORM:
        return true;
    case QD_Q:
    case QD_K:
    case QD_V:
    case QD_O:
        return !k->linear_attention;
    case QD_Q_NORM:
    case QD_K_NORM:
        return !k->linear_attention && m->qk_norm;
    case QD_DELTA_QKV:
    case QD_DELTA_Z:
    case QD_DELTA_B:
    case QD_DELTA_A:
        return k->linear_attention && !m->interleaved_qkvz;
    case QD_DELTA_QKVZ:
    case QD_DELTA_BA:
        return k->linear_attention && m->interleaved_qkvz;
    case QD_DELTA_CONV:
    case QD_DELTA_A_LOG:
    case QD_DELTA_DT:
    case QD_DELTA_NORM:
    case QD_DELTA_OUT:
        return k->linear_attention;
    case QD_GATE:
    case QD_UP:
    case QD_DOWN:
        return !k->moe;
    case QD_ROUTER:
        return k->moe;
    case QD_SHARED_GATE:
    case QD_SHARED_UP:
    case QD_SHARED_DOWN:
    case QD_SHARED_SCALE:
        return k->moe && m->shared_intermediate != 0;
    case QD_EXPERTS_GATE_UP:
    case QD_EXPERTS_DOWN:
    case QD_SLOT_COUNT:
        break;
    }
    return false; /* fused experts: asked for where the layer has no single ones */
}
