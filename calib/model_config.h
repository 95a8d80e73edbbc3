/* model_config.h -- what a forward pass needs of config.json, as one struct. */
#ifndef QD_CALIB_MODEL_CONFIG_H
#define QD_CALIB_MODEL_CONFIG_H

#include "ckpt/arch.h"

typedef enum qd_rope_kind {
    QD_ROPE_DEFAULT,
    QD_ROPE_LINEAR,
    QD_ROPE_LLAMA3,
    QD_ROPE_YARN
} qd_rope_kind;

typedef struct qd_rope {
    qd_rope_kind kind;
    uint64_t dim; /* elements of a head that are turned; even */
    double theta, factor, low_freq_factor, high_freq_factor, original_max;
    double beta_fast, beta_slow, attention_factor; /* yarn; attention_factor is resolved */
    bool truncate;
} qd_rope;

typedef struct qd_layer_kind {
    bool linear_attention; /* gated delta rule instead of attention */
    bool sliding;          /* attention sees `window` tokens */
    bool moe;
} qd_layer_kind;

typedef struct qd_model_config {
    const qd_arch *arch;
    uint64_t n_layers, hidden, vocab, intermediate; /* intermediate: of dense MLPs; 0 where the model has none */
    uint64_t n_heads, n_kv_heads, head_dim, window;
    float eps;
    bool norm_plus_one, qk_norm, attention_gate, tied;
    qd_rope rope;
    /* mixture of experts; n_experts 0 where there is none */
    uint64_t n_experts, top_k, expert_intermediate, shared_intermediate;
    bool normalize_top_k, f32_router_weights;
    /* gated delta rule; 0 where there is none */
    uint64_t k_heads, v_heads, k_dim, v_dim, conv_taps;
    bool interleaved_qkvz; /* one projection, ordered by key head: q, k, v, z of a group (qwen3_next) */
    qd_layer_kind *layers; /* [n_layers], in the arena given */
} qd_model_config;

/* Reads c's config (text_config of multimodal wrappers). what: the file in errors. Defaults are those of transformers
 * 5.17. Errors: QD_E_UNSUPPORTED (architecture without a forward pass, activation, kind of RoPE), QD_E_INPUT (key,
 * expected, found: missing, out of range, or sizes that do not fit each other), QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_model_config_read(const qd_config *c, const char *what, qd_arena *arena, qd_model_config *ret,
                                           qd_err *err);
/* Inverse frequencies [dim / 2], in F32 as transformers computes them. */
void qd_rope_frequencies(const qd_rope *r, float *ret);

#endif
