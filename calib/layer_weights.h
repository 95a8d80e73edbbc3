/* layer_weights.h -- where the weights of a forward pass lie in a checkpoint, and one layer of them in memory. */
#ifndef QD_CALIB_LAYER_WEIGHTS_H
#define QD_CALIB_LAYER_WEIGHTS_H

#include "calib/model_config.h"
#include "gpu/ops.h"

/* The tensors of a layer. X(slot, suffix after "layers.#.", rows, cols): sizes are names of the table of dimensions in
 * layer_index.c; cols ONE: a vector, held as F32. */
/* clang-format off */
#define QD_SLOTS(X)                                                                        \
    X(QD_IN_NORM, "input_layernorm.weight", HIDDEN, ONE)                                   \
    X(QD_POST_NORM, "post_attention_layernorm.weight", HIDDEN, ONE)                        \
    X(QD_Q, "self_attn.q_proj.weight", Q_GATE, HIDDEN)                                     \
    X(QD_K, "self_attn.k_proj.weight", KV, HIDDEN)                                         \
    X(QD_V, "self_attn.v_proj.weight", KV, HIDDEN)                                         \
    X(QD_O, "self_attn.o_proj.weight", HIDDEN, Q)                                          \
    X(QD_Q_NORM, "self_attn.q_norm.weight", HEAD, ONE)                                     \
    X(QD_K_NORM, "self_attn.k_norm.weight", HEAD, ONE)                                     \
    X(QD_DELTA_QKV, "linear_attn.in_proj_qkv.weight", D_QKV, HIDDEN)                       \
    X(QD_DELTA_Z, "linear_attn.in_proj_z.weight", D_VALUE, HIDDEN)                         \
    X(QD_DELTA_QKVZ, "linear_attn.in_proj_qkvz.weight", D_QKVZ, HIDDEN)                    \
    X(QD_DELTA_B, "linear_attn.in_proj_b.weight", D_HEADS, HIDDEN)                         \
    X(QD_DELTA_A, "linear_attn.in_proj_a.weight", D_HEADS, HIDDEN)                         \
    X(QD_DELTA_BA, "linear_attn.in_proj_ba.weight", D_BA, HIDDEN)                          \
    X(QD_DELTA_CONV, "linear_attn.conv1d.weight", D_CONV, ONE)                             \
    X(QD_DELTA_A_LOG, "linear_attn.A_log", D_HEADS, ONE)                                   \
    X(QD_DELTA_DT, "linear_attn.dt_bias", D_HEADS, ONE)                                    \
    X(QD_DELTA_NORM, "linear_attn.norm.weight", D_V, ONE)                                  \
    X(QD_DELTA_OUT, "linear_attn.out_proj.weight", HIDDEN, D_VALUE)                        \
    X(QD_GATE, "mlp.gate_proj.weight", INTER, HIDDEN)                                      \
    X(QD_UP, "mlp.up_proj.weight", INTER, HIDDEN)                                          \
    X(QD_DOWN, "mlp.down_proj.weight", HIDDEN, INTER)                                      \
    X(QD_ROUTER, "{mlp,block_sparse_moe}.gate.weight", EXPERTS, HIDDEN)                    \
    X(QD_SHARED_GATE, "mlp.shared_expert.gate_proj.weight", S_INTER, HIDDEN)               \
    X(QD_SHARED_UP, "mlp.shared_expert.up_proj.weight", S_INTER, HIDDEN)                   \
    X(QD_SHARED_DOWN, "mlp.shared_expert.down_proj.weight", HIDDEN, S_INTER)               \
    X(QD_SHARED_SCALE, "mlp.shared_expert_gate.weight", ROW, HIDDEN)                       \
    X(QD_EXPERTS_GATE_UP, "mlp.experts.gate_up_proj", E_GATE_UP, HIDDEN)                   \
    X(QD_EXPERTS_DOWN, "mlp.experts.down_proj", E_HIDDEN, E_INTER)
/* clang-format on */

typedef enum qd_slot {
#define X(slot, suffix, rows, cols) slot,
    QD_SLOTS(X)
#undef X
    QD_SLOT_COUNT
} qd_slot;

typedef enum qd_expert_part {
    QD_EXPERT_GATE,
    QD_EXPERT_UP,
    QD_EXPERT_DOWN,
    QD_EXPERT_PARTS
} qd_expert_part;

#define QD_NO_TENSOR UINT32_MAX

typedef struct qd_layer_index {
    uint32_t weight[QD_SLOT_COUNT], bias[QD_SLOT_COUNT]; /* tensors of the checkpoint or QD_NO_TENSOR */
    uint32_t (*experts)[QD_EXPERT_PARTS];                /* [n_experts]; NULL where the layer has none of its own */
} qd_layer_index;

typedef struct qd_model_index {
    const qd_ckpt *ckpt;
    qd_model_config config;
    uint32_t embed, head, norm; /* tensors; head is embed where embeddings are tied */
    qd_layer_index *layers;     /* [config.n_layers] */
    qd_arena arena;             /* owned */
} qd_model_index;

/* Finds and checks every tensor of the forward pass. c must outlive it; release with qd_model_index_done().
 * Errors: those of qd_model_config_read(); QD_E_INPUT for a tensor that is missing or has another shape (file, tensor,
 * expected, found); QD_E_UNSUPPORTED for a quantized source or a dtype other than BF16, F16 and F32. */
QD_MUST_CHECK qd_code qd_model_index_open(const qd_ckpt *c, qd_model_index *ret, qd_err *err);
void qd_model_index_done(qd_model_index *x);

/* One layer in memory. Linears are BF16 where the source is BF16 or bf16 is asked for, else F32; vectors are F32. */
typedef struct qd_layer {
    uint64_t number;
    qd_layer_kind kind;
    const qd_layer_index *index;           /* which tensors w and experts are from */
    qd_weight w[QD_SLOT_COUNT];            /* data NULL where the layer has no such tensor */
    qd_weight (*experts)[QD_EXPERT_PARTS]; /* [n_experts], also where the source has all in one tensor; owned */
    uint64_t n_experts;
    const qd_ops *ops;
    void *memory; /* owned */
    uint64_t memory_bytes;
} qd_layer;

/* Reads a layer, in pieces of at most 4 MiB with a tick of tasks for each; *ret must be zeroed before and released
 * with qd_layer_done(). Errors: QD_E_IO, QD_E_CHANGED, QD_E_NO_MEMORY, QD_E_CANCELED. */
QD_MUST_CHECK qd_code qd_layer_load(const qd_model_index *x, uint64_t layer, const qd_ops *ops, bool bf16,
                                    qd_tasks *tasks, qd_layer *ret, qd_err *err);
/* Puts linears and vectors into the device's own form, but for those that are in one: after the last change of their
 * data, before the first tile. */
QD_MUST_CHECK qd_code qd_layer_pack(qd_layer *l, bool bf16, qd_tasks *tasks, qd_err *err);
void qd_layer_done(qd_layer *l);
/* A tensor outside the layers (norm, head) in the same form; memory as in qd_layer. */
typedef struct qd_single {
    qd_weight w;
    const qd_ops *ops;
    void *memory; /* owned */
    uint64_t memory_bytes;
} qd_single;
QD_MUST_CHECK qd_code qd_single_load(const qd_model_index *x, uint32_t tensor, bool vector, const qd_ops *ops,
                                     bool bf16, qd_tasks *tasks, qd_single *ret, qd_err *err);
void qd_single_done(qd_single *s);
/* Row ids[i] of the embedding to ret [n][hidden] in the program's memory, rounded to BF16 where bf16. */
QD_MUST_CHECK qd_code qd_embed_rows(const qd_model_index *x, const qd_ops *ops, bool bf16, const int32_t *ids,
                                    uint64_t n, float *ret, qd_err *err);

#endif
