/* elementwise.cu -- operations of one element each: a block takes QD_CUDA_PIECE elements of a row. */
#include "gpu/cuda/forward_args.h"
#include "gpu/cuda/load.h"
#include "gpu/elements.h"

typedef struct span {
    uint64_t row, from, to;
} span;

/* The elements of this thread: from, from + blockDim.x, .. below to. */
QD_DEVICE span mine(uint32_t pieces, uint64_t n)
{
    const uint64_t at = (uint64_t)(blockIdx.x % pieces) * QD_CUDA_PIECE;
    const span s = {blockIdx.x / pieces, at + threadIdx.x, at + QD_CUDA_PIECE < n ? at + QD_CUDA_PIECE : n};
    return s;
}

QD_KERNEL(qd_k_add, qd_cuda_rows_args)
{
    const span s = mine(a.pieces, a.n);
    float *x = a.x + s.row * a.ldx;
    const float *y = a.y + s.row * a.ldy;
    for (uint64_t i = s.from; i < s.to; i += blockDim.x) x[i] = qd_rounded(x[i] + y[i], a.bf16);
}

/* y [n] or NULL. */
QD_KERNEL(qd_k_bias, qd_cuda_rows_args)
{
    const span s = mine(a.pieces, a.n);
    float *x = a.x + s.row * a.ldx;
    for (uint64_t i = s.from; i < s.to; i += blockDim.x) x[i] = qd_rounded(a.y != 0 ? x[i] + a.y[i] : x[i], a.bf16);
}

QD_KERNEL(qd_k_silu_mul, qd_cuda_rows_args)
{
    const span s = mine(a.pieces, a.n);
    float *x = a.x + s.row * a.ldx;
    const float *y = a.y + s.row * a.ldy;
    for (uint64_t i = s.from; i < s.to; i += blockDim.x) x[i] = qd_silu_mul(x[i], y[i], a.bf16);
}

/* y [rows]: gates. */
QD_KERNEL(qd_k_gate_rows, qd_cuda_rows_args)
{
    const span s = mine(a.pieces, a.n);
    float *x = a.x + s.row * a.ldx;
    const float f = qd_rounded(qd_sigmoid(a.y[s.row]), a.bf16);
    for (uint64_t i = s.from; i < s.to; i += blockDim.x) x[i] = qd_rounded(x[i] * f, a.bf16);
}

/* x [rows][n] dense, y with ld a.ldx. */
QD_KERNEL(qd_k_gather, qd_cuda_index_args)
{
    const span s = mine(a.pieces, a.n);
    float *x = a.x + s.row * a.n;
    const float *y = a.y + (uint64_t)a.index[s.row] * a.ldx;
    for (uint64_t i = s.from; i < s.to; i += blockDim.x) x[i] = y[i];
}

QD_KERNEL(qd_k_scatter_add, qd_cuda_index_args)
{
    const span s = mine(a.pieces, a.n);
    float *x = a.x + (uint64_t)a.index[s.row] * a.ldx;
    const float *y = a.y + s.row * a.n;
    const float w = a.weight[s.row];
    for (uint64_t i = s.from; i < s.to; i += blockDim.x) x[i] = qd_add_weighted(x[i], y[i], w, a.bf16);
}

QD_KERNEL(qd_k_copy, qd_cuda_heads_args)
{
    const span s = mine(a.pieces, a.n);
    float *x = a.x + s.row / a.n_heads * a.ldx + s.row % a.n_heads * a.head_x;
    const float *y = a.y + s.row / a.n_heads * a.ldy + s.row % a.n_heads * a.head_y;
    for (uint64_t i = s.from; i < s.to; i += blockDim.x) x[i] = y[i];
}

QD_KERNEL(qd_k_gate, qd_cuda_heads_args)
{
    const span s = mine(a.pieces, a.n);
    float *x = a.x + s.row / a.n_heads * a.ldx + s.row % a.n_heads * a.head_x;
    const float *y = a.y + s.row / a.n_heads * a.ldy + s.row % a.n_heads * a.head_y;
    for (uint64_t i = s.from; i < s.to; i += blockDim.x) x[i] = qd_gated(x[i], y[i], a.bf16);
}

QD_KERNEL(qd_k_rope, qd_cuda_rope_args)
{
    const span s = mine(a.pieces, a.half);
    const uint64_t row = s.row / a.n_heads;
    float *x = a.x + row * a.ldx + s.row % a.n_heads * a.head;
    for (uint64_t j = s.from; j < s.to; j += blockDim.x) {
        const float p = x[j], q = x[j + a.half], cos = a.cos[row * a.half + j], sin = a.sin[row * a.half + j];
        x[j] = qd_rope_a(p, q, cos, sin, a.bf16);
        x[j + a.half] = qd_rope_b(p, q, cos, sin, a.bf16);
    }
}

QD_KERNEL(qd_k_conv_silu, qd_cuda_conv_args)
{
    const span s = mine(a.pieces, a.n);
    const uint64_t first = s.row + 1 < a.taps ? a.taps - 1 - s.row : 0; /* taps before the sequence */
    for (uint64_t c = s.from; c < s.to; c += blockDim.x) {
        float sum = 0;
        for (uint64_t j = first; j < a.taps; j++)
            sum += a.w[c * a.taps + j] * a.x[(s.row + 1 + j - a.taps) * a.ldx + c];
        a.y[s.row * a.ldy + c] = qd_conv_end(sum, a.bf16);
    }
}

/* The library's exp and log1p, within 2 ulp: the one place where host and device may differ. */
QD_KERNEL(qd_k_decay, qd_cuda_decay_args)
{
    const uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= a.total) return;
    const uint64_t r = i / a.n, h = i % a.n;
    const float x = a.a[r * a.lda + h] + a.dt_bias[h];
    const float softplus = x > 20.0f ? x : log1pf(expf(x));
    a.beta[i] = qd_rounded(qd_sigmoid(a.b[r * a.ldb + h]), a.bf16);
    a.g[i] = -expf(a.a_log[h]) * softplus;
}

QD_KERNEL(qd_k_widen, qd_cuda_convert_args)
{
    const uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < a.total) a.x[i] = load_half(a.h[i], a.dtype);
}

QD_KERNEL(qd_k_narrow, qd_cuda_convert_args)
{
    const uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < a.total) a.h[i] = (uint16_t)(qd_f32_bits(qd_round_bf16(a.x[i / a.n * a.ldx + i % a.n])) >> 16);
}

/* A thread a token. */
QD_KERNEL(qd_k_route, qd_cuda_route_args)
{
    const uint64_t r = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= a.rows) return;
    qd_route_row(a.logits + r * a.n_experts, a.n_experts, a.top_k, a.normalize, a.bf16, a.index + r * a.top_k,
                 a.weight + r * a.top_k, a.margin + r);
}
