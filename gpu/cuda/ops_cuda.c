/* ops_cuda.c -- the operations that are one kernel: queued on the lane's stream; what fails is told by the next
 * operation that can. */
#include "gpu/cuda/device.h"
#include "gpu/cuda/forward.h"
#include "gpu/host_ops.h"

#define STREAM(l) (qd_cuda_lane_of(l)->stage.stream)

static qd_code delta_rule(qd_lane *l, const qd_delta *d, qd_err *err)
{
    qd_cuda_note(l, qd_cuda_delta(STREAM(l), l->bf16, d->n_tokens, d->n_k_heads, d->n_v_heads, d->k_dim, d->v_dim,
                                  d->qkv, d->qkv_token, d->beta, d->g, d->out));
    qd_code rc = qd_cuda_lane_check(l, "delta rule", err);
    return rc == QD_OK ? qd_lane_tick(l, err) : rc;
}

static void rms_norm(const qd_lane *l, const float *x, uint64_t ldx, uint64_t rows, uint64_t n_heads, uint64_t head_x,
                     uint64_t n, const float *w, qd_norm_kind kind, float eps, float *y, uint64_t ldy, uint64_t head_y)
{
    qd_cuda_note(l, qd_cuda_rms_norm(STREAM(l), l->bf16, x, ldx, rows, n_heads, head_x, n, w, kind == QD_NORM_PLUS_ONE,
                                     eps, y, ldy, head_y));
}

static void gated_norm(const qd_lane *l, const float *x, const float *gate, uint64_t ldg, uint64_t rows,
                       uint64_t n_heads, uint64_t n, const float *w, float eps, float *y)
{
    qd_cuda_note(l, qd_cuda_gated_norm(STREAM(l), l->bf16, x, gate, ldg, rows, n_heads, n, w, eps, y));
}

static void rope(const qd_lane *l, float *x, uint64_t rows, uint64_t ldx, uint64_t n_heads, uint64_t head_stride,
                 uint64_t rot, const float *cos, const float *sin)
{
    qd_cuda_note(l, qd_cuda_rope(STREAM(l), l->bf16, x, rows, ldx, n_heads, head_stride, rot, cos, sin));
}

static void conv_silu(const qd_lane *l, const float *x, uint64_t ldx, uint64_t rows, uint64_t n, const float *w,
                      uint64_t taps, float *y, uint64_t ldy)
{
    qd_cuda_note(l, qd_cuda_conv_silu(STREAM(l), l->bf16, x, ldx, rows, n, w, taps, y, ldy));
}

static void silu_mul(const qd_lane *l, float *g, uint64_t ldg, const float *u, uint64_t ldu, uint64_t rows, uint64_t n)
{
    qd_cuda_note(l, qd_cuda_silu_mul(STREAM(l), l->bf16, g, ldg, u, ldu, rows, n));
}

static void gate(const qd_lane *l, float *x, uint64_t ldx, const float *g, uint64_t ldg, uint64_t rows,
                 uint64_t n_heads, uint64_t gate_head, uint64_t n)
{
    qd_cuda_note(l, qd_cuda_gate(STREAM(l), l->bf16, x, ldx, g, ldg, rows, n_heads, gate_head, n));
}

static void gate_rows(const qd_lane *l, float *x, uint64_t ldx, const float *g, uint64_t rows, uint64_t n)
{
    qd_cuda_note(l, qd_cuda_gate_rows(STREAM(l), l->bf16, x, ldx, g, rows, n));
}

static void decay(const qd_lane *l, const float *b, uint64_t ldb, const float *a, uint64_t lda, const float *a_log,
                  const float *dt_bias, uint64_t rows, uint64_t n, float *beta, float *g)
{
    qd_cuda_note(l, qd_cuda_decay(STREAM(l), l->bf16, b, ldb, a, lda, a_log, dt_bias, rows, n, beta, g));
}

static void add(const qd_lane *l, float *x, uint64_t ldx, const float *y, uint64_t ldy, uint64_t rows, uint64_t n)
{
    qd_cuda_note(l, qd_cuda_add(STREAM(l), l->bf16, x, ldx, y, ldy, rows, n));
}

static void copy(const qd_lane *l, const float *x, uint64_t ldx, uint64_t head_x, uint64_t rows, uint64_t n_heads,
                 uint64_t n, float *y, uint64_t ldy, uint64_t head_y)
{
    qd_cuda_note(l, qd_cuda_copy(STREAM(l), x, ldx, head_x, rows, n_heads, n, y, ldy, head_y));
}

static void gather(const qd_lane *l, const float *x, uint64_t ldx, const uint32_t *index, uint64_t rows, uint64_t n,
                   float *y)
{
    qd_cuda_note(l, qd_cuda_gather(STREAM(l), x, ldx, index, rows, n, y));
}

static void scatter_add(const qd_lane *l, const float *y, const uint32_t *index, const float *weight, uint64_t rows,
                        uint64_t n, float *x, uint64_t ldx)
{
    qd_cuda_note(l, qd_cuda_scatter_add(STREAM(l), l->bf16, y, index, weight, rows, n, x, ldx));
}

static void route(const qd_lane *l, const float *logits, uint64_t rows, uint32_t n_experts, uint32_t top_k,
                  bool normalize, bool round_weights, uint32_t *index, float *weight, float *margin)
{
    qd_cuda_note(l, qd_cuda_route(STREAM(l), round_weights && l->bf16, logits, rows, n_experts, top_k, normalize, index,
                                  weight, margin));
}

static void block_amax(const qd_lane *l, const float *x, uint64_t n_blocks, uint32_t *bits)
{
    qd_cuda_note(l, qd_cuda_block_amax(STREAM(l), x, n_blocks, bits));
}

static void fake_quant(const qd_lane *l, float gs, const uint32_t *bits, const float *x, uint64_t n_blocks, float *y)
{
    qd_cuda_note(l, qd_cuda_fake_quant(STREAM(l), gs, bits, x, n_blocks, y));
}

static void zero(const qd_lane *l, float *x, uint64_t n)
{
    if (n != 0) qd_cuda_note(l, (int)cudaMemsetAsync(x, 0, n * sizeof *x, STREAM(l)));
}

static qd_code finish(qd_lane *l, qd_err *err)
{
    qd_cuda_lane *c = qd_cuda_lane_of(l);
    qd_code rc = qd_cuda_check(c->device, cudaStreamSynchronize(c->stage.stream), "work in a lane", err);
    return rc == QD_OK ? qd_cuda_lane_check(l, "launch", err) : rc;
}

void qd_cuda_ops_fill(qd_ops *ops)
{
    ops->delta_rule = delta_rule;
    ops->rms_norm = rms_norm;
    ops->gated_norm = gated_norm;
    ops->rope = rope;
    ops->conv_silu = conv_silu;
    ops->silu_mul = silu_mul;
    ops->gate = gate;
    ops->gate_rows = gate_rows;
    ops->decay = decay;
    ops->add = add;
    ops->copy = copy;
    ops->gather = gather;
    ops->scatter_add = scatter_add;
    ops->route = route;
    ops->block_amax = block_amax;
    ops->fake_quant = fake_quant;
    ops->zero = zero;
    ops->finish = finish;
    ops->load = qd_host_load;
    ops->store = qd_host_store;
}
