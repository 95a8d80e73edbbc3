/* forward_memory.c -- what a pass will take, from sizes alone: for plans that refuse before they begin. The sums follow
 * what layer_*.c and gpu/host_*.c take; tests hold them against what was taken. */
#include "base/mem.h"
#include "calib/layer_run.h"
#include "calib/tiles.h"

#define F           ((uint64_t)sizeof(float))
#define SLACK_BYTES (UINT64_C(4) << 20) /* blocks of scratch that are not filled */
#define BLOCK_ROWS  512                 /* of a matrix in one BF16 product: gpu/host_bf16.c */
#define WIDENED     (UINT64_C(512) << 10)
#define QUERIES     64
#define DELTA_CHUNK 64
#define POOL_ALIGN  256 /* gpu/cuda/pool.h */

/* Inside one linear with k columns: rows widened, or x narrowed and a block of the result. */
static uint64_t linear_bytes(uint64_t k)
{
    return qd_max_u64(WIDENED, 64 * k * F) + QD_TILE_ROWS * (k * 2 + BLOCK_ROWS * F);
}

static uint64_t mlp_bytes(const qd_model_config *m, uint64_t inter, uint64_t rows, bool sees)
{
    uint64_t n = qd_min_u64(rows, QD_MLP_ROWS);
    return n * F * (2 * inter + (sees ? m->hidden + inter : 0)) + linear_bytes(qd_max_u64(m->hidden, inter));
}

static uint64_t moe_bytes(const qd_model_config *m, uint64_t rows, bool sees)
{
    uint64_t n = qd_min_u64(rows, QD_MLP_ROWS);
    uint64_t fixed = rows * F * (2 * m->top_k + 3 + m->n_experts), router = sees ? rows * F * m->hidden : 0;
    uint64_t expert = 2 * n * F * m->hidden + mlp_bytes(m, m->expert_intermediate, rows, sees);
    uint64_t shared = rows * F * (m->hidden + 1) + mlp_bytes(m, m->shared_intermediate, rows, sees);
    return qd_max_u64(router, fixed + qd_max_u64(expert, shared));
}

static uint64_t attention_bytes(const qd_model_config *m, uint64_t rows, bool sees)
{
    uint64_t o = m->n_heads * m->head_dim, q = o * (m->attention_gate ? 2 : 1), kv = m->n_kv_heads * m->head_dim;
    return rows * F * (q + 2 * kv + o + (sees ? m->hidden + o : 0)) +
           qd_max_u64(QUERIES * rows * (F + 2) + rows * 3 * (m->head_dim + 64), linear_bytes(qd_max_u64(m->hidden, o)));
}

static uint64_t delta_bytes(const qd_model_config *m, uint64_t rows, bool sees)
{
    uint64_t value = m->v_heads * m->v_dim, qkv = 2 * m->k_heads * m->k_dim + value;
    uint64_t taken = 2 * qkv + 2 * value + 4 * m->v_heads + (sees ? m->hidden + value : 0);
    if (m->interleaved_qkvz) taken += qkv + value + 2 * m->v_heads;
    uint64_t chunk = F * (DELTA_CHUNK * (3 * m->k_dim + 2 * m->v_dim + 2 * DELTA_CHUNK) + m->k_dim * m->v_dim);
    return rows * F * taken + qd_max_u64(chunk, linear_bytes(qd_max_u64(m->hidden, value)));
}

static uint64_t lane_bytes(const qd_model_config *m, uint64_t rows, bool sees, bool logits)
{
    uint64_t mixer = 0, mlp = 0, head = 0;
    for (uint64_t i = 0; i < m->n_layers; i++) {
        const qd_layer_kind *k = &m->layers[i];
        mixer = qd_max_u64(mixer, k->linear_attention ? delta_bytes(m, rows, sees) : attention_bytes(m, rows, sees));
        mlp = qd_max_u64(mlp, k->moe ? moe_bytes(m, rows, sees) : mlp_bytes(m, m->intermediate, rows, sees));
    }
    if (logits) head = qd_logits_rows(m) * F * (m->vocab + (sees ? m->hidden : 0)) + linear_bytes(m->hidden);
    uint64_t layer = 2 * rows * F * m->hidden + qd_max_u64(mixer, mlp);
    /* A block is left where the next piece does not fit: at worst half of what is taken */
    return SLACK_BYTES + (rows * F * m->hidden + qd_max_u64(layer, head)) * 3 / 2;
}

static uint64_t held_bytes(const qd_model_index *x, uint32_t tensor, bool bf16)
{
    const qd_tensor *t = tensor == QD_NO_TENSOR ? NULL : &x->ckpt->tensors[tensor];
    if (t == NULL) return 0;
    return t->n_elems * (t->dtype == QD_BF16 || bf16 ? 2 : F) + 256;
}

static uint64_t layer_bytes(const qd_model_index *x, uint64_t number, bool bf16)
{
    const qd_layer_index *l = &x->layers[number];
    uint64_t sum = 0;
    for (int s = 0; s < QD_SLOT_COUNT; s++) sum += held_bytes(x, l->weight[s], bf16) + held_bytes(x, l->bias[s], bf16);
    if (l->experts == NULL || l->weight[QD_EXPERTS_GATE_UP] != QD_NO_TENSOR) return sum;
    for (uint64_t e = 0; e < x->config.n_experts; e++)
        for (int p = 0; p < QD_EXPERT_PARTS; p++) sum += held_bytes(x, l->experts[e][p], bf16);
    return sum;
}

/* The most columns that a linear reads, and the most that one side of it has beside the hidden size. */
static uint64_t widest_input(const qd_model_config *m)
{
    uint64_t mixer = qd_max_u64(m->n_heads * m->head_dim, m->v_heads * m->v_dim);
    uint64_t mlp = qd_max_u64(m->intermediate, qd_max_u64(m->expert_intermediate, m->shared_intermediate));
    return qd_max_u64(m->hidden, qd_max_u64(mixer, mlp));
}

static uint64_t widest_side(const qd_model_config *m)
{
    uint64_t q = m->n_heads * m->head_dim * (m->attention_gate ? 2 : 1);
    uint64_t qkvz = 2 * m->k_heads * m->k_dim + m->v_heads * m->v_dim * (m->interleaved_qkvz ? 2 : 1);
    return qd_max_u64(widest_input(m), qd_max_u64(q, qkvz));
}

/* What operations of a device take in a lane beside the values of a tile: gpu/cuda/products.c. */
static uint64_t operation_bytes(const qd_model_config *m, const qd_ops *ops, uint64_t rows, uint64_t longest,
                                const qd_forward_opts *opts, const qd_forward_hooks *hooks)
{
    uint64_t row = qd_max_u64(1, m->n_heads / qd_max_u64(1, m->n_kv_heads)) * longest * F;
    uint64_t scores = qd_max_u64(row, qd_min_u64(row * longest, ops->scores_bytes));
    uint64_t side = qd_max_u64(widest_side(m), hooks->on_logits != NULL ? m->vocab : 0);
    uint64_t wide = qd_max_u64(widest_input(m) * F, qd_min_u64(side * m->hidden * F, ops->wide_bytes));
    uint64_t bits = hooks->on_input != NULL ? rows * widest_input(m) / 16 * sizeof(uint32_t) : 0;
    return ops->lane_bytes + scores + (opts->bf16 ? rows * (widest_input(m) + 2) * 2 : wide) + bits;
}

void qd_forward_measure(const qd_model_index *x, const qd_tokens *t, const qd_forward_opts *opts,
                        const qd_forward_hooks *hooks, qd_forward_memory *ret)
{
    const qd_model_config *m = &x->config;
    const qd_ops *ops = opts->ops != NULL ? opts->ops : qd_ops_host(NULL);
    uint64_t weights = 0, head = hooks->on_logits != NULL ? held_bytes(x, x->head, opts->bf16) : 0;
    for (uint64_t i = 0; i < m->n_layers; i++) weights = qd_max_u64(weights, layer_bytes(x, i, opts->bf16));
    uint64_t layer = qd_max_u64(weights, head);
    uint64_t rows = qd_tiles_rows(t, qd_tile_rows_max(m)), longest = 0;
    for (uint64_t i = 0; i < t->n_seqs; i++) longest = qd_max_u64(longest, t->starts[i + 1] - t->starts[i]);
    *ret = (qd_forward_memory){.layer_bytes = layer * (opts->bf16 && ops->packs ? 2 : 1),
                               .weight_bytes = weights,
                               .lane_bytes = lane_bytes(m, rows, hooks->on_input != NULL, hooks->on_logits != NULL),
                               .activation_bytes = t->starts[t->n_seqs] * m->hidden * (opts->bf16 ? 2 : F),
                               .angle_bytes = longest * m->rope.dim * F};
    if (ops->on_host) return;
    /* Every tensor begins at a multiple of POOL_ALIGN. */
    ret->device_bytes = layer + (QD_SLOT_COUNT + QD_EXPERT_PARTS * m->n_experts) * 2 * POOL_ALIGN + ret->angle_bytes +
                        m->hidden * F + 4 * POOL_ALIGN;
    ret->device_lane_bytes = ret->lane_bytes + operation_bytes(m, ops, rows, longest, opts, hooks);
}
