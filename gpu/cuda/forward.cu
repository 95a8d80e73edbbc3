/* forward.cu -- kernel, grid and block of each operation of a forward pass. */
#include "gpu/cuda/forward.h"

#include "base/dtype.h"
#include "gpu/cuda/forward_args.h"
#include "gpu/gptq.h"

#define GRID_MAX 0x7fffffffu
#define THREADS  QD_CUDA_THREADS

enum {
    HALF_WARP = 16, /* QD_SUM_LANES */
    VECTORS = QD_CUDA_THREADS / HALF_WARP
};

static uint64_t blocks(uint64_t n, uint64_t of)
{
    return n / of + (n % of != 0);
}

/* Of `rows` rows of n elements; 0 where the grid is too large or there is nothing. */
static uint64_t row_blocks(uint64_t rows, uint64_t n)
{
    const uint64_t pieces = blocks(n, QD_CUDA_PIECE);
    return pieces == 0 || rows > GRID_MAX / pieces ? 0 : rows * pieces;
}

/* Launches over a grid that may be empty (`empty`: the operation has nothing to do) or too large. */
#define LAUNCH(name, grid, threads, stream, args, empty)       \
    ((empty)                            ? 0                    \
     : (grid) == 0 || (grid) > GRID_MAX ? (int)QD_CUDA_INVALID \
                                        : QD_LAUNCH(name, grid, threads, stream, args))

int qd_cuda_bias(void *stream, int bf16, float *x, uint64_t ldx, uint64_t rows, uint64_t n, const float *bias)
{
    const qd_cuda_rows_args args = {x, ldx, bias, 0, n, (uint32_t)blocks(n, QD_CUDA_PIECE), bf16};
    return LAUNCH(qd_k_bias, row_blocks(rows, n), THREADS, stream, &args, rows == 0 || n == 0 || (bias == 0 && !bf16));
}

#define ROWS_OP(name)                                                                                               \
    int qd_cuda_##name(void *stream, int bf16, float *x, uint64_t ldx, const float *y, uint64_t ldy, uint64_t rows, \
                       uint64_t n)                                                                                  \
    {                                                                                                               \
        const qd_cuda_rows_args args = {x, ldx, y, ldy, n, (uint32_t)blocks(n, QD_CUDA_PIECE), bf16};               \
        return LAUNCH(qd_k_##name, row_blocks(rows, n), THREADS, stream, &args, rows == 0 || n == 0);               \
    }
ROWS_OP(add)
ROWS_OP(silu_mul)
#undef ROWS_OP

int qd_cuda_gate_rows(void *stream, int bf16, float *x, uint64_t ldx, const float *gate, uint64_t rows, uint64_t n)
{
    const qd_cuda_rows_args args = {x, ldx, gate, 0, n, (uint32_t)blocks(n, QD_CUDA_PIECE), bf16};
    return LAUNCH(qd_k_gate_rows, row_blocks(rows, n), THREADS, stream, &args, rows == 0 || n == 0);
}

int qd_cuda_gate(void *stream, int bf16, float *x, uint64_t ldx, const float *gate, uint64_t ldg, uint64_t rows,
                 uint64_t n_heads, uint64_t gate_head, uint64_t n)
{
    const qd_cuda_heads_args args = {
        x, ldx, n, gate, ldg, gate_head, n, (uint32_t)n_heads, (uint32_t)blocks(n, QD_CUDA_PIECE), bf16};
    if (n_heads > GRID_MAX || rows > GRID_MAX) return QD_CUDA_INVALID;
    return LAUNCH(qd_k_gate, row_blocks(rows * n_heads, n), THREADS, stream, &args, rows * n_heads == 0 || n == 0);
}

int qd_cuda_copy(void *stream, const float *x, uint64_t ldx, uint64_t head_x, uint64_t rows, uint64_t n_heads,
                 uint64_t n, float *y, uint64_t ldy, uint64_t head_y)
{
    const qd_cuda_heads_args args = {
        y, ldy, head_y, x, ldx, head_x, n, (uint32_t)n_heads, (uint32_t)blocks(n, QD_CUDA_PIECE), 0};
    if (n_heads > GRID_MAX || rows > GRID_MAX) return QD_CUDA_INVALID;
    return LAUNCH(qd_k_copy, row_blocks(rows * n_heads, n), THREADS, stream, &args, rows * n_heads == 0 || n == 0);
}

int qd_cuda_gather(void *stream, const float *x, uint64_t ldx, const uint32_t *index, uint64_t rows, uint64_t n,
                   float *y)
{
    const qd_cuda_index_args args = {y, ldx, x, index, 0, n, (uint32_t)blocks(n, QD_CUDA_PIECE), 0};
    return LAUNCH(qd_k_gather, row_blocks(rows, n), THREADS, stream, &args, rows == 0 || n == 0);
}

int qd_cuda_scatter_add(void *stream, int bf16, const float *y, const uint32_t *index, const float *weight,
                        uint64_t rows, uint64_t n, float *x, uint64_t ldx)
{
    const qd_cuda_index_args args = {x, ldx, y, index, weight, n, (uint32_t)blocks(n, QD_CUDA_PIECE), bf16};
    return LAUNCH(qd_k_scatter_add, row_blocks(rows, n), THREADS, stream, &args, rows == 0 || n == 0);
}

int qd_cuda_rope(void *stream, int bf16, float *x, uint64_t rows, uint64_t ldx, uint64_t n_heads, uint64_t head_stride,
                 uint64_t rot, const float *cos, const float *sin)
{
    const uint64_t half = rot / 2;
    const qd_cuda_rope_args args = {
        x, ldx, head_stride, cos, sin, half, (uint32_t)n_heads, (uint32_t)blocks(half, QD_CUDA_PIECE), bf16};
    if (n_heads > GRID_MAX || rows > GRID_MAX) return QD_CUDA_INVALID;
    return LAUNCH(qd_k_rope, row_blocks(rows * n_heads, half), THREADS, stream, &args,
                  rows * n_heads == 0 || half == 0);
}

int qd_cuda_conv_silu(void *stream, int bf16, const float *x, uint64_t ldx, uint64_t rows, uint64_t n, const float *w,
                      uint64_t taps, float *y, uint64_t ldy)
{
    const qd_cuda_conv_args args = {x, ldx, w, y, ldy, n, (uint32_t)taps, (uint32_t)blocks(n, QD_CUDA_PIECE), bf16};
    if (taps > GRID_MAX) return QD_CUDA_INVALID;
    return LAUNCH(qd_k_conv_silu, row_blocks(rows, n), THREADS, stream, &args, rows == 0 || n == 0);
}

int qd_cuda_decay(void *stream, int bf16, const float *b, uint64_t ldb, const float *a, uint64_t lda,
                  const float *a_log, const float *dt_bias, uint64_t rows, uint64_t n, float *beta, float *g)
{
    const qd_cuda_decay_args args = {b, a, ldb, lda, a_log, dt_bias, beta, g, n, rows * n, bf16};
    return LAUNCH(qd_k_decay, blocks(rows * n, THREADS), THREADS, stream, &args, rows * n == 0);
}

int qd_cuda_rms_norm(void *stream, int bf16, const float *x, uint64_t ldx, uint64_t rows, uint64_t n_heads,
                     uint64_t head_x, uint64_t n, const float *w, int plus_one, float eps, float *y, uint64_t ldy,
                     uint64_t head_y)
{
    const qd_cuda_norm_args args = {x,   ldx, head_x, 0, 0, w, y, ldy, head_y, n, rows * n_heads, (uint32_t)n_heads,
                                    eps, bf16};
    const uint64_t grid = blocks(rows * n_heads, VECTORS);
    if (plus_one) return LAUNCH(qd_k_norm_plus_one, grid, THREADS, stream, &args, grid == 0);
    return LAUNCH(qd_k_norm_plain, grid, THREADS, stream, &args, grid == 0);
}

int qd_cuda_gated_norm(void *stream, int bf16, const float *x, const float *gate, uint64_t ldg, uint64_t rows,
                       uint64_t n_heads, uint64_t n, const float *w, float eps, float *y)
{
    const qd_cuda_norm_args args = {
        x, n_heads * n, n, gate, ldg, w, y, n_heads * n, n, n, rows * n_heads, (uint32_t)n_heads, eps, bf16};
    const uint64_t grid = blocks(rows * n_heads, VECTORS);
    return LAUNCH(qd_k_norm_gated, grid, THREADS, stream, &args, grid == 0);
}

int qd_cuda_softmax(void *stream, int bf16, float *s, uint64_t n_heads, uint64_t n_queries, uint64_t n_keys,
                    uint64_t first_query, uint64_t first_key, uint64_t window, float scale)
{
    const qd_cuda_softmax_args args = {
        s, n_heads * n_queries, n_queries, n_keys, first_query, first_key, window, scale, bf16};
    const uint64_t grid = blocks(n_heads * n_queries, VECTORS);
    return LAUNCH(qd_k_softmax, grid, THREADS, stream, &args, grid == 0);
}

int qd_cuda_delta(void *stream, int bf16, uint64_t n_tokens, uint64_t n_k_heads, uint64_t n_v_heads, uint64_t k_dim,
                  uint64_t v_dim, const float *qkv, uint64_t qkv_token, const float *beta, const float *g, float *out)
{
    const uint64_t col_blocks = blocks(v_dim, QD_CUDA_DELTA_COLS);
    if (k_dim > QD_CUDA_DELTA_KEYS || n_v_heads > 0xffffu || v_dim > 0xffffu) return QD_CUDA_INVALID;
    const qd_cuda_delta_args args = {qkv,
                                     qkv_token,
                                     beta,
                                     g,
                                     out,
                                     n_tokens,
                                     (uint32_t)n_k_heads,
                                     (uint32_t)n_v_heads,
                                     (uint32_t)k_dim,
                                     (uint32_t)v_dim,
                                     (uint32_t)col_blocks,
                                     bf16};
    return LAUNCH(qd_k_delta, n_v_heads * col_blocks, QD_CUDA_DELTA_COLS * QD_CUDA_DELTA_PARTS, stream, &args,
                  n_tokens == 0 || n_v_heads * col_blocks == 0);
}

int qd_cuda_route(void *stream, int round_weights, const float *logits, uint64_t rows, uint32_t n_experts,
                  uint32_t top_k, int normalize, uint32_t *index, float *weight, float *margin)
{
    const qd_cuda_route_args args = {logits, rows, n_experts, top_k, normalize, round_weights, index, weight, margin};
    if (top_k == 0 || top_k > n_experts) return QD_CUDA_INVALID;
    return LAUNCH(qd_k_route, blocks(rows, THREADS), THREADS, stream, &args, rows == 0);
}

int qd_cuda_widen(void *stream, int dtype, const void *h, uint64_t n, float *x)
{
    const qd_cuda_convert_args args = {x, n, (uint16_t *)(uintptr_t)h, n, n, dtype};
    if (dtype != QD_BF16 && dtype != QD_F16) return QD_CUDA_INVALID;
    return LAUNCH(qd_k_widen, blocks(n, THREADS), THREADS, stream, &args, n == 0);
}

int qd_cuda_narrow(void *stream, const float *x, uint64_t ldx, uint64_t rows, uint64_t n, void *h)
{
    const qd_cuda_convert_args args = {(float *)(uintptr_t)x, ldx, (uint16_t *)h, n, rows * n, QD_BF16};
    return LAUNCH(qd_k_narrow, blocks(rows * n, THREADS), THREADS, stream, &args, rows * n == 0);
}

int qd_cuda_block_amax(void *stream, const float *x, uint64_t n_blocks, uint32_t *bits)
{
    const qd_cuda_blocks_args args = {x, n_blocks, bits, 0, 0.0f};
    return LAUNCH(qd_k_block_amax, blocks(n_blocks, THREADS), THREADS, stream, &args, n_blocks == 0);
}

int qd_cuda_fake_quant(void *stream, float gs, const uint32_t *bits, const float *x, uint64_t n_blocks, float *y)
{
    const qd_cuda_blocks_args args = {x, n_blocks, (uint32_t *)(uintptr_t)bits, y, gs};
    return LAUNCH(qd_k_fake_quant, blocks(n_blocks, THREADS / 16), THREADS, stream, &args, n_blocks == 0);
}

int qd_cuda_moments(void *stream, const float *x, uint64_t ldx, uint64_t rows, uint64_t n, double *sum2)
{
    const qd_cuda_moments_args args = {x, ldx, rows, n, sum2};
    return LAUNCH(qd_k_moments, blocks(n, THREADS), THREADS, stream, &args, n == 0);
}

int qd_cuda_permute(void *stream, const float *h, uint64_t n, const uint32_t *order, float damp, float *a)
{
    const qd_cuda_permute_args args = {h, order, a, n, damp};
    return LAUNCH(qd_k_permute, blocks(n * n, THREADS), THREADS, stream, &args, n == 0);
}

int qd_cuda_lower(void *stream, float *a, uint64_t n)
{
    const qd_cuda_permute_args args = {0, 0, a, n, 0.0f};
    return LAUNCH(qd_k_lower, blocks(n * n, THREADS), THREADS, stream, &args, n == 0);
}

int qd_cuda_gptq_gather(void *stream, const float *w, const float *q, uint64_t n_rows, uint64_t n,
                        const uint32_t *order, float gs, float *x)
{
    const qd_cuda_gather_args args = {w, q, order, x, n, n_rows * n, gs};
    return LAUNCH(qd_k_gptq_gather, blocks(n_rows * n, THREADS), THREADS, stream, &args, n_rows * n == 0);
}

int qd_cuda_gptq_panel(void *stream, const float *l, const uint32_t *order, uint64_t n, uint64_t n_rows, uint64_t first,
                       uint64_t end, const float *x, float *d, const float *sum, double *loss, uint8_t *codes,
                       uint8_t *scales)
{
    const qd_cuda_gptq_args args = {l, order, n, n_rows, first, end, x, d, sum, loss, codes, scales};
    if (end > n || first >= end || end - first > QD_GPTQ_PANEL || first % QD_NVFP4_BLOCK != 0 ||
        end % QD_NVFP4_BLOCK != 0)
        return QD_CUDA_INVALID;
    return LAUNCH(qd_k_gptq_panel, blocks(n_rows, QD_CUDA_GPTQ_ROWS), QD_CUDA_GPTQ_ROWS * QD_NVFP4_BLOCK, stream, &args,
                  n_rows == 0);
}

int qd_cuda_squares(void *stream, const float *x, uint64_t n_rows, uint64_t n, double *ret)
{
    const qd_cuda_squares_args args = {x, n_rows, n, ret};
    return LAUNCH(qd_k_squares, blocks(n_rows, THREADS), THREADS, stream, &args, n_rows == 0);
}
