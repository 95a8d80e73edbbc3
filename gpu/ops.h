/* ops.h -- SEAM: the operations of a forward pass on one device. ops_host.c is the processor this runs on.
 *
 * Every operation is required. Matrices are row-major F32 with a leading dimension in elements (ld), in the device's
 * memory. With lane->bf16 every operation rounds its results to BF16, to nearest with ties to even, wherever an eager
 * BF16 model of transformers holds a BF16 tensor: the values are then BF16's, held as F32. Sums are F32 in a fixed
 * order: the same arguments give the same bytes on one device, whatever the number of lanes.
 * Threads: a lane belongs to one thread; lanes of one device run side by side. Weights may be read by all of them.
 * Long operations look at the cancel token and count ticks between pieces of a few tens of milliseconds. */
#ifndef QD_GPU_OPS_H
#define QD_GPU_OPS_H

#include "base/dtype.h"
#include "base/tasks.h"
#include "gpu/scratch.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct qd_ops qd_ops;
typedef struct qd_solver qd_solver; /* gpu/solver.h */

typedef struct qd_lane {
    const qd_ops *ops;
    qd_scratch scratch; /* of the device's memory */
    void *device;       /* of lane_open; NULL where the device needs none */
    bool bf16;
    qd_cancel *cancel;     /* may be NULL */
    atomic_ulong *n_ticks; /* may be NULL: counts pieces of work */
    uint64_t flops;        /* of the matrix products done in this lane */
} qd_lane;

/* A linear's matrix [n][k] (y = x w^T) and bias [n]. data stays the caller's and must outlive it. */
typedef struct qd_weight {
    qd_dtype dtype; /* BF16 or F32 */
    uint64_t n, k;
    const void *data;
    const float *bias;       /* NULL for none */
    void *packed;            /* the device's own form, made by weight_pack; NULL where it needs none */
    const void *device_data; /* data in the device's memory, set by weight_pack; NULL: data is there */
    bool exact;              /* its results decide (experts, decays): operands are not rounded to fewer bits */
} qd_weight;

typedef enum qd_norm_kind {
    QD_NORM_PLAIN,    /* round(w * round(x / rms)) */
    QD_NORM_PLUS_ONE, /* round((1 + w) * x / rms) */
} qd_norm_kind;

/* One sequence. Query head h reads key-value head h / (n_heads / n_kv_heads). Strides in elements; a head's elements
 * lie side by side. */
typedef struct qd_attention {
    uint64_t n_tokens, n_heads, n_kv_heads, head_dim;
    uint64_t window; /* a token sees itself and window - 1 before it; 0: all before it */
    float scale;
    const float *q, *k, *v;
    uint64_t q_token, q_head, kv_token; /* strides; k and v: heads of a token lie side by side */
    float *out;                         /* [n_tokens][n_heads * head_dim] */
    uint64_t out_token;
} qd_attention;

/* One sequence of the gated delta rule. q and k have n_k_heads heads of k_dim, v n_v_heads of v_dim; value head h uses
 * key head h / (n_v_heads / n_k_heads). All three lie in one row a token: q, k, v. */
typedef struct qd_delta {
    uint64_t n_tokens, n_k_heads, n_v_heads, k_dim, v_dim;
    const float *qkv;
    uint64_t qkv_token;    /* stride */
    const float *beta, *g; /* [n_tokens][n_v_heads]: step size in (0, 1), log of the decay (<= 0) */
    float *out;            /* [n_tokens][n_v_heads * v_dim] */
} qd_delta;

/* Some rows of inputs for sums of outer products. Private to the device but for its life: the lane's scratch. */
typedef struct qd_gram {
    const float *x;
    uint64_t ld, rows;
    uint32_t *q, *u;
    float *scale;
    int32_t *sum;
} qd_gram;

enum {
    QD_NUMERICS_BYTES = 96,
    QD_GRAM_ROWS = 512
};

struct qd_ops {
    const char *name;
    bool packs;           /* weight_pack of a BF16 matrix takes as many bytes again */
    bool on_host;         /* the device's memory is the program's */
    unsigned n_lanes_max; /* more of them do not pay; 0: one a processor does */
    /* Device memory that operations take in a lane for themselves: in any case; at most, for attention scores and for
     * weights that are widened. */
    uint64_t lane_bytes, scores_bytes, wide_bytes;
    const qd_memory *memory; /* scratch is made of it; NULL: the program's */
    const qd_solver *solver; /* GPTQ in the device's memory; NULL: as on the host, with gemm() */
    void (*close)(const qd_ops *ops);
    /* Takes the device memory of a pass, once; nothing where as much is held. Errors: QD_E_NO_MEMORY (wanted, free). */
    qd_code (*reserve)(const qd_ops *ops, uint64_t bytes, qd_err *err);
    /* Most of it that was in use at once since then; 0: the program's memory is the device's. */
    uint64_t (*memory_peak)(const qd_ops *ops);
    /* Before and after the use of a lane, whose other fields are set. The scratch of a lane is given back by the caller
     * before lane_close. */
    qd_code (*lane_open)(qd_lane *l, qd_err *err);
    void (*lane_close)(qd_lane *l);
    /* Values from the program's memory in stored form (BF16, F16 or F32) to the device as F32; back as BF16 or F32.
     * download returns when they are there, and with what failed in the lane before. */
    qd_code (*upload)(qd_lane *l, qd_dtype dtype, const void *from, uint64_t n, float *to, qd_err *err);
    qd_code (*download)(qd_lane *l, qd_dtype dtype, const float *from, uint64_t n, void *to, qd_err *err);
    void (*zero)(const qd_lane *l, float *x, uint64_t n);
    /* Returns when all that was queued in the lane is done, and with what failed in it. */
    qd_code (*finish)(qd_lane *l, qd_err *err);
    /* What the bytes of products depend on besides their arguments: device, library and its version, instruction set.
     * Two devices with the same text give the same bytes. At most QD_NUMERICS_BYTES with the NUL. */
    void (*numerics)(const qd_ops *ops, char *ret);
    /* Vectors as well as matrices; data and bias must not change after. In pieces of some milliseconds by tasks, or the
     * caller's thread alone where that is NULL. Errors: QD_E_NO_MEMORY, QD_E_CANCELED, QD_E_DEVICE. */
    qd_code (*weight_pack)(const qd_ops *ops, qd_weight *w, bool bf16, qd_tasks *tasks, qd_err *err);
    void (*weight_unpack)(qd_weight *w); /* frees w->packed */

    /* y [m][n] = x [m][k] w^T + bias. Errors: QD_E_CANCELED, QD_E_NO_MEMORY, QD_E_DEVICE. */
    qd_code (*linear)(qd_lane *l, const float *x, uint64_t m, uint64_t ldx, const qd_weight *w, float *y, uint64_t ldy,
                      qd_err *err);
    /* C [m][n] (+)= A [m][k] B in F32, nothing rounded; b_rows: B is [n][k], else [k][n]. The same errors. */
    qd_code (*gemm)(qd_lane *l, bool b_rows, uint64_t m, uint64_t n, uint64_t k, const float *a, uint64_t lda,
                    const float *b, uint64_t ldb, bool add, float *c, uint64_t ldc, qd_err *err);
    /* x [rows][n], at most QD_GRAM_ROWS rows, in the form that gram() takes; in the lane's scratch. */
    qd_code (*gram_begin)(qd_lane *l, const float *x, uint64_t ld, uint64_t rows, uint64_t n, qd_gram *ret,
                          qd_err *err);
    /* C [m][n] += X_i^T X_j, the columns of x from i and from j on; i and j multiples of 32. What lies above the
     * diagonal of X^T X may be left out. The same errors. */
    qd_code (*gram)(qd_lane *l, const qd_gram *g, uint64_t i, uint64_t m, uint64_t j, uint64_t n, float *c,
                    uint64_t ldc, qd_err *err);
    /* Causal attention with softmax in F32. The same errors. */
    qd_code (*attention)(qd_lane *l, const qd_attention *a, qd_err *err);
    /* Gated delta rule, in chunks, in F32; the result is rounded. q and k are L2-normalized here and q scaled by
     * k_dim^-1/2. Source: Yang et al., Gated Delta Networks (2412.06464), the chunked form with the UT transform. */
    qd_code (*delta_rule)(qd_lane *l, const qd_delta *d, qd_err *err);

    /* rows x n_heads vectors of n elements each, at x + row * ldx + head * head_stride; y likewise, may be x. */
    void (*rms_norm)(const qd_lane *l, const float *x, uint64_t ldx, uint64_t rows, uint64_t n_heads, uint64_t head_x,
                     uint64_t n, const float *w, qd_norm_kind kind, float eps, float *y, uint64_t ldy, uint64_t head_y);
    /* y = round(round(w * round(x / rms)) * silu(gate)), for the output of the delta rule; y may be x. */
    void (*gated_norm)(const qd_lane *l, const float *x, const float *gate, uint64_t ldg, uint64_t rows,
                       uint64_t n_heads, uint64_t n, const float *w, float eps, float *y);
    /* In place: element j and j + rot/2 of each head are a plane turned by the angle of (token, j); the elements from
     * rot on stay. cos, sin: [rows][rot / 2]. */
    void (*rope)(const qd_lane *l, float *x, uint64_t rows, uint64_t ldx, uint64_t n_heads, uint64_t head_stride,
                 uint64_t rot, const float *cos, const float *sin);
    /* Depthwise causal convolution over tokens and silu: y[t][c] = silu(sum_j w[c][j] x[t - taps + 1 + j][c]). */
    void (*conv_silu)(const qd_lane *l, const float *x, uint64_t ldx, uint64_t rows, uint64_t n, const float *w,
                      uint64_t taps, float *y, uint64_t ldy);
    /* g = round(silu(g)) * u over rows x n. */
    void (*silu_mul)(const qd_lane *l, float *g, uint64_t ldg, const float *u, uint64_t ldu, uint64_t rows, uint64_t n);
    /* x *= sigmoid(gate) for n_heads x n elements a row; gate_head is the stride between heads of the gate. */
    void (*gate)(const qd_lane *l, float *x, uint64_t ldx, const float *gate, uint64_t ldg, uint64_t rows,
                 uint64_t n_heads, uint64_t gate_head, uint64_t n);
    /* x[r] *= sigmoid(gate[r]) over rows x n. */
    void (*gate_rows)(const qd_lane *l, float *x, uint64_t ldx, const float *gate, uint64_t rows, uint64_t n);
    /* beta = sigmoid(b); g = -exp(a_log) * softplus(a + dt_bias), in F32: rows x n. */
    void (*decay)(const qd_lane *l, const float *b, uint64_t ldb, const float *a, uint64_t lda, const float *a_log,
                  const float *dt_bias, uint64_t rows, uint64_t n, float *beta, float *g);
    /* x += y over rows x n. */
    void (*add)(const qd_lane *l, float *x, uint64_t ldx, const float *y, uint64_t ldy, uint64_t rows, uint64_t n);
    /* rows x n_heads vectors of n elements from x + row * ldx + head * head_x to y + row * ldy + head * head_y. */
    void (*copy)(const qd_lane *l, const float *x, uint64_t ldx, uint64_t head_x, uint64_t rows, uint64_t n_heads,
                 uint64_t n, float *y, uint64_t ldy, uint64_t head_y);
    /* y[i] = x[index[i]]; n elements a row. */
    void (*gather)(const qd_lane *l, const float *x, uint64_t ldx, const uint32_t *index, uint64_t rows, uint64_t n,
                   float *y);
    /* x[index[i]] += round(weight[i] * y[i]); rows of an index come once. */
    void (*scatter_add)(const qd_lane *l, const float *y, const uint32_t *index, const float *weight, uint64_t rows,
                        uint64_t n, float *x, uint64_t ldx);
    /* Softmax over n_experts logits in F32, the top_k largest (of equal ones the lower index), normalized to a sum of 1
     * where asked, rounded where round_weights. margin: probability of the last one taken less that of the first one
     * not taken. index, weight: [rows][top_k]. */
    void (*route)(const qd_lane *l, const float *logits, uint64_t rows, uint32_t n_experts, uint32_t top_k,
                  bool normalize, bool round_weights, uint32_t *index, float *weight, float *margin);
    /* Values [n_blocks][16]: the largest magnitude of each block as bits, and FP4 and back under the global scale gs,
     * as qd_host_block_amax() and qd_host_fake_quant() of gpu/host_blocks.h, to the bit. y may be x. */
    void (*block_amax)(const qd_lane *l, const float *x, uint64_t n_blocks, uint32_t *bits);
    void (*fake_quant)(const qd_lane *l, float gs, const uint32_t *bits, const float *x, uint64_t n_blocks, float *y);
    /* Between the stored form (BF16 or F32, dense) and F32, both in the program's memory. */
    void (*load)(qd_dtype dtype, const void *from, uint64_t n, float *to);
    void (*store)(qd_dtype dtype, const float *from, uint64_t n, void *to);
};

/* The processor this runs on. name: NULL for what is fastest here, or "cpu" (F32 products of widened values) or
 * "cpu-bf16" (BF16 products of oneDNN) for tests and measurements, or "cpu-int8" where the processor has AVX-512 VNNI;
 * NULL is returned for another name. */
const qd_ops *qd_ops_host(const char *name);
/* What passes use that gather statistics of inputs: where it is the fastest here "cpu-int8" (integer products of blocks
 * of 16, gpu/host_int8.c: exact for NVFP4 values, others are rounded to 8 bits a block), else what NULL gives. coarse:
 * its weight_pack gives a scale to blocks of 64, for what is not NVFP4; the rest is the same. */
const qd_ops *qd_ops_calibration(bool coarse);

/* Values of a vector where operations read them. */
static inline const float *qd_weight_values(const qd_weight *w)
{
    return w->device_data != NULL ? w->device_data : w->data;
}

/* A lane with its scratch: between these it may be used. */
QD_MUST_CHECK qd_code qd_lane_open(qd_lane *l, qd_err *err);
void qd_lane_close(qd_lane *l);
/* n values of the lane's device where the program can read them: x itself, or a copy in *ret_copy (qd_free() it). */
QD_MUST_CHECK qd_code qd_lane_see(qd_lane *l, const float *x, uint64_t n, const float **ret, float **ret_copy,
                                  qd_err *err);

/* Cancel and tick between two pieces of an operation. */
static inline QD_MUST_CHECK qd_code qd_lane_tick(qd_lane *l, qd_err *err)
{
    if (l->n_ticks != NULL) atomic_fetch_add_explicit(l->n_ticks, 1, memory_order_relaxed);
    if (qd_cancel_asked(l->cancel)) return qd_fail(err, QD_E_CANCELED, "canceled");
    return QD_OK;
}

#endif
