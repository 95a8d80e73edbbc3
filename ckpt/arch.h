/* arch.h -- from a tensor's name to its place in the model: role, layer, expert, and which linears share a global
 * scale.
 *
 * Each architecture is a table of rows {pattern, role, fuse tag}; the next one costs a few lines. Patterns match the
 * whole name, '#' stands for a decimal number (the first is the layer, the second the expert). Prefixes "model." and
 * "model.language_model." are alike; "mtp." and the vision tower have roles of their own and are never quantized by the
 * tables. */
#ifndef QD_CKPT_ARCH_H
#define QD_CKPT_ARCH_H

#include "ckpt/checkpoint.h"

typedef enum qd_role {
    QD_ROLE_OTHER, /* not known: copied */
    QD_ROLE_EMBED,
    QD_ROLE_HEAD,
    QD_ROLE_NORM,
    QD_ROLE_ROUTER,
    QD_ROLE_GATE /* shared_expert_gate */,
    QD_ROLE_SMALL, /* conv1d, A_log, dt_bias, in_proj_a/b, biases */
    QD_ROLE_VISION,
    QD_ROLE_MTP,
    QD_ROLE_ATTN,        /* linears from here on: q k v o */
    QD_ROLE_LINEAR_ATTN, /* in_proj_qkv(z), in_proj_z, out_proj */
    QD_ROLE_MLP,
    QD_ROLE_SHARED_EXPERT,
    QD_ROLE_EXPERT,
    QD_ROLE_LINEAR_OTHER, /* a 2-D *.weight of an architecture that has no table */
    QD_ROLE_COUNT
} qd_role;

typedef enum qd_split {
    QD_SPLIT_NONE,
    QD_SPLIT_GATE_UP, /* 3-D [E, 2I, H]: rows 0..I-1 of expert e are gate_proj, I..2I-1 up_proj */
    QD_SPLIT_DOWN     /* 3-D [E, H, I]: down_proj of expert e */
} qd_split;

typedef struct qd_place {
    qd_role role;
    qd_split split;
    int32_t layer, expert; /* -1 where there is none */
    const char *fuse;      /* tag within the parent: linears with the same parent and tag share one global scale ("qkv",
                              "gate_up",      "in_proj"); "" for none */
    bool fuse_ct;          /* llm-compressor ties this set too (not so for in_proj_qkv/in_proj_z) */
} qd_place;

typedef struct qd_arch qd_arch; /* constant tables */

/* The table for a config: by text_model_type ("qwen3_5_moe_text" and "qwen3_5_moe" alike), NULL for an architecture
 * without one. */
const qd_arch *qd_arch_find(const qd_config *c);
const char *qd_arch_name(const qd_arch *a);
/* Where tensor t belongs. arch NULL uses the generic rules: every 2-D "*.weight" that is not an embedding, norm,
 * router, gate, convolution or head is QD_ROLE_LINEAR_OTHER, with the usual fused sets tied by name. */
void qd_arch_place(const qd_arch *a, const qd_tensor *t, qd_place *ret);
const char *qd_role_name(qd_role r); /* "attention", "mlp", "expert", ... */
static inline bool qd_role_is_linear(qd_role r)
{
    return r >= QD_ROLE_ATTN;
}

/* One [rows, cols] matrix that can be quantized: a whole 2-D tensor, or a slab of rows of a 3-D one. */
typedef struct qd_linear {
    const char *name;    /* of the module on the way out: no ".weight"; per expert where the source was fused */
    uint32_t tensor;     /* index into the checkpoint's tensors */
    uint64_t first_row;  /* of the tensor seen as [n_elems / cols, cols] */
    uint64_t rows, cols; /* N, K */
    qd_place place;      /* expert filled in also for split ones */
    const char
        *fuse_key; /* equal strings share a global scale (parent + tag); unique per linear where there is no set */
    const char *fuse_key_ct; /* the same as llm-compressor ties them */
} qd_linear;

/* Expands tensor index `tensor` of c into its linears (1, E, or 2E of them; 0 when it is not a linear) appended through
 * emit. Names are made in arena. Errors: QD_E_INPUT for shapes that do not fit the table (odd 2I, rank),
 * QD_E_NO_MEMORY. */
typedef qd_code (*qd_linear_fn)(void *ctx, const qd_linear *l, qd_err *err);
QD_MUST_CHECK qd_code qd_arch_linears(const qd_arch *a, const qd_ckpt *c, uint32_t tensor, qd_arena *arena,
                                      qd_linear_fn emit, void *ctx, qd_err *err);

#endif
