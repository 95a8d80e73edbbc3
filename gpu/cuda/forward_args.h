/* forward_args.h -- the kernels of a forward pass and of GPTQ, and their parameters; every pointer is device memory.
 * What they do: gpu/ops.h, with the same names; ld, head and strides count elements. bf16: round as a BF16 model does.
 */
#ifndef QD_GPU_CUDA_FORWARD_ARGS_H
#define QD_GPU_CUDA_FORWARD_ARGS_H

#include "gpu/cuda/cuda.h"

#include <stdint.h>

/* rows x n elements, each on its own. a block: one row, QD_CUDA_PIECE elements of it. */
typedef struct qd_cuda_rows_args {
    float *x;
    uint64_t ldx;
    const float *y; /* the other operand */
    uint64_t ldy;
    uint64_t n;
    uint32_t pieces; /* of a row */
    int32_t bf16;
} qd_cuda_rows_args;

typedef struct qd_cuda_index_args {
    float *x;
    uint64_t ldx;
    const float *y;
    const uint32_t *index; /* [rows] */
    const float *weight;   /* [rows], scatter_add only */
    uint64_t n;
    uint32_t pieces;
    int32_t bf16;
} qd_cuda_index_args;

/* rows x heads vectors of n elements. */
typedef struct qd_cuda_heads_args {
    float *x;
    uint64_t ldx, head_x;
    const float *y;
    uint64_t ldy, head_y;
    uint64_t n;
    uint32_t n_heads, pieces;
    int32_t bf16;
} qd_cuda_heads_args;

typedef struct qd_cuda_rope_args {
    float *x;
    uint64_t ldx, head;
    const float *cos, *sin; /* [rows][half] */
    uint64_t half;
    uint32_t n_heads, pieces;
    int32_t bf16;
} qd_cuda_rope_args;

/* QD_SUM_LANES threads a vector; n_vectors = rows x heads. */
typedef struct qd_cuda_norm_args {
    const float *x;
    uint64_t ldx, head_x;
    const float *gate; /* gated: [rows][ldg], heads side by side */
    uint64_t ldg;
    const float *w; /* [n] */
    float *y;       /* may be x */
    uint64_t ldy, head_y;
    uint64_t n, n_vectors;
    uint32_t n_heads;
    float eps;
    int32_t bf16;
} qd_cuda_norm_args;

/* Scores [n_heads][n_queries][n_keys] to probabilities, in place; query i of the block is token first_query + i and
 * sees the keys first_key + [0, n_keys) that its causal window holds. */
typedef struct qd_cuda_softmax_args {
    float *s;
    uint64_t n_rows; /* n_heads x n_queries */
    uint64_t n_queries, n_keys, first_query, first_key, window;
    float scale;
    int32_t bf16;
} qd_cuda_softmax_args;

typedef struct qd_cuda_conv_args {
    const float *x;
    uint64_t ldx;
    const float *w; /* [n][taps] */
    float *y;
    uint64_t ldy, n;
    uint32_t taps, pieces;
    int32_t bf16;
} qd_cuda_conv_args;

typedef struct qd_cuda_decay_args {
    const float *b, *a;
    uint64_t ldb, lda;
    const float *a_log, *dt_bias; /* [n] */
    float *beta, *g;              /* [rows][n] */
    uint64_t n, total;            /* total = rows x n */
    int32_t bf16;
} qd_cuda_decay_args;

enum {
    QD_CUDA_DELTA_COLS = 16,  /* columns of a state in one block */
    QD_CUDA_DELTA_PARTS = 16, /* threads that share a column */
    QD_CUDA_DELTA_KEYS = 256  /* k_dim at most */
};

/* A block: QD_CUDA_DELTA_COLS columns of one value head, all tokens. */
typedef struct qd_cuda_delta_args {
    const float *qkv;
    uint64_t qkv_token;
    const float *beta, *g;
    float *out;
    uint64_t n_tokens;
    uint32_t n_k_heads, n_v_heads, k_dim, v_dim, col_blocks;
    int32_t bf16;
} qd_cuda_delta_args;

typedef struct qd_cuda_route_args {
    const float *logits; /* [rows][n_experts] */
    uint64_t rows;
    uint32_t n_experts, top_k;
    int32_t normalize, bf16;
    uint32_t *index;
    float *weight, *margin;
} qd_cuda_route_args;

/* Between stored and computed form. widen: h [n] of `dtype` to x [n]; narrow: x [rows][ldx] to BF16 h [rows][n]. */
typedef struct qd_cuda_convert_args {
    float *x;
    uint64_t ldx;
    uint16_t *h;
    uint64_t n, total;
    int32_t dtype;
} qd_cuda_convert_args;

/* Blocks of 16 activations, [n_blocks][16]. */
typedef struct qd_cuda_blocks_args {
    const float *x;
    uint64_t n_blocks;
    uint32_t *bits; /* [n_blocks]: block_amax writes them */
    float *y;       /* fake_quant; may be x */
    float gs;
} qd_cuda_blocks_args;

/* sum2[c] += x[t][c]^2 over t in order, in F64. */
typedef struct qd_cuda_moments_args {
    const float *x;
    uint64_t ldx, rows, n;
    double *sum2; /* [n] */
} qd_cuda_moments_args;

enum {
    QD_CUDA_GPTQ_ROWS = 16 /* of a block of qd_k_gptq_panel, 16 threads each */
};

/* See gpu/solver.h. */
typedef struct qd_cuda_gptq_args {
    const float *l;
    const uint32_t *order;
    uint64_t n, n_rows, first, end;
    const float *x;
    float *d;
    const float *sum;
    double *loss;
    uint8_t *codes, *scales;
} qd_cuda_gptq_args;

typedef struct qd_cuda_permute_args {
    const float *h;
    const uint32_t *order;
    float *a;
    uint64_t n;
    float damp;
} qd_cuda_permute_args;

typedef struct qd_cuda_gather_args {
    const float *w, *q; /* q may be NULL */
    const uint32_t *order;
    float *x;
    uint64_t n, total;
    float gs;
} qd_cuda_gather_args;

typedef struct qd_cuda_squares_args {
    const float *x;
    uint64_t n_rows, n;
    double *ret;
} qd_cuda_squares_args;

#define QD_CUDA_FORWARD_KERNELS(X)           \
    X(qd_k_add, qd_cuda_rows_args)           \
    X(qd_k_bias, qd_cuda_rows_args)          \
    X(qd_k_silu_mul, qd_cuda_rows_args)      \
    X(qd_k_gate_rows, qd_cuda_rows_args)     \
    X(qd_k_gather, qd_cuda_index_args)       \
    X(qd_k_scatter_add, qd_cuda_index_args)  \
    X(qd_k_copy, qd_cuda_heads_args)         \
    X(qd_k_gate, qd_cuda_heads_args)         \
    X(qd_k_rope, qd_cuda_rope_args)          \
    X(qd_k_conv_silu, qd_cuda_conv_args)     \
    X(qd_k_decay, qd_cuda_decay_args)        \
    X(qd_k_norm_plain, qd_cuda_norm_args)    \
    X(qd_k_norm_plus_one, qd_cuda_norm_args) \
    X(qd_k_norm_gated, qd_cuda_norm_args)    \
    X(qd_k_softmax, qd_cuda_softmax_args)    \
    X(qd_k_delta, qd_cuda_delta_args)        \
    X(qd_k_route, qd_cuda_route_args)        \
    X(qd_k_widen, qd_cuda_convert_args)      \
    X(qd_k_narrow, qd_cuda_convert_args)     \
    X(qd_k_block_amax, qd_cuda_blocks_args)  \
    X(qd_k_fake_quant, qd_cuda_blocks_args)  \
    X(qd_k_moments, qd_cuda_moments_args)    \
    X(qd_k_gptq_panel, qd_cuda_gptq_args)    \
    X(qd_k_permute, qd_cuda_permute_args)    \
    X(qd_k_lower, qd_cuda_permute_args)      \
    X(qd_k_gptq_gather, qd_cuda_gather_args) \
    X(qd_k_squares, qd_cuda_squares_args)

#define X(name, type) QD_KERNEL_DECLARE(name, type);
QD_CUDA_FORWARD_KERNELS(X)
#undef X

#define QD_CUDA_PIECE   1024u /* elements of a row that one block takes */
#define QD_CUDA_THREADS 256u

#endif
