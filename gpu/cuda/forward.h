/* forward.h -- C entry points to the kernels of a forward pass: the operations of gpu/ops.h that are not the library's,
 * with the same arguments. Device memory; queued on a stream (cudaStream_t), nothing waits. Each returns 0 or a
 * cudaError_t; QD_CUDA_INVALID for what no kernel takes, before anything is queued. Threads: no state of its own. */
#ifndef QD_GPU_CUDA_FORWARD_H
#define QD_GPU_CUDA_FORWARD_H

#include "gpu/cuda/launch.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y = round(x + bias) over rows x n in place; bias NULL: only rounded. */
int qd_cuda_bias(void *stream, int bf16, float *x, uint64_t ldx, uint64_t rows, uint64_t n, const float *bias);
int qd_cuda_add(void *stream, int bf16, float *x, uint64_t ldx, const float *y, uint64_t ldy, uint64_t rows,
                uint64_t n);
int qd_cuda_silu_mul(void *stream, int bf16, float *g, uint64_t ldg, const float *u, uint64_t ldu, uint64_t rows,
                     uint64_t n);
int qd_cuda_gate_rows(void *stream, int bf16, float *x, uint64_t ldx, const float *gate, uint64_t rows, uint64_t n);
int qd_cuda_gate(void *stream, int bf16, float *x, uint64_t ldx, const float *gate, uint64_t ldg, uint64_t rows,
                 uint64_t n_heads, uint64_t gate_head, uint64_t n);
int qd_cuda_copy(void *stream, const float *x, uint64_t ldx, uint64_t head_x, uint64_t rows, uint64_t n_heads,
                 uint64_t n, float *y, uint64_t ldy, uint64_t head_y);
int qd_cuda_gather(void *stream, const float *x, uint64_t ldx, const uint32_t *index, uint64_t rows, uint64_t n,
                   float *y);
int qd_cuda_scatter_add(void *stream, int bf16, const float *y, const uint32_t *index, const float *weight,
                        uint64_t rows, uint64_t n, float *x, uint64_t ldx);
int qd_cuda_rope(void *stream, int bf16, float *x, uint64_t rows, uint64_t ldx, uint64_t n_heads, uint64_t head_stride,
                 uint64_t rot, const float *cos, const float *sin);
int qd_cuda_conv_silu(void *stream, int bf16, const float *x, uint64_t ldx, uint64_t rows, uint64_t n, const float *w,
                      uint64_t taps, float *y, uint64_t ldy);
int qd_cuda_decay(void *stream, int bf16, const float *b, uint64_t ldb, const float *a, uint64_t lda,
                  const float *a_log, const float *dt_bias, uint64_t rows, uint64_t n, float *beta, float *g);
int qd_cuda_rms_norm(void *stream, int bf16, const float *x, uint64_t ldx, uint64_t rows, uint64_t n_heads,
                     uint64_t head_x, uint64_t n, const float *w, int plus_one, float eps, float *y, uint64_t ldy,
                     uint64_t head_y);
int qd_cuda_gated_norm(void *stream, int bf16, const float *x, const float *gate, uint64_t ldg, uint64_t rows,
                       uint64_t n_heads, uint64_t n, const float *w, float eps, float *y);
/* Scores of n_heads x n_queries rows, in place: queries first_query .. against keys first_key .. + n_keys. */
int qd_cuda_softmax(void *stream, int bf16, float *s, uint64_t n_heads, uint64_t n_queries, uint64_t n_keys,
                    uint64_t first_query, uint64_t first_key, uint64_t window, float scale);
/* k_dim at most 256. */
int qd_cuda_delta(void *stream, int bf16, uint64_t n_tokens, uint64_t n_k_heads, uint64_t n_v_heads, uint64_t k_dim,
                  uint64_t v_dim, const float *qkv, uint64_t qkv_token, const float *beta, const float *g, float *out);
int qd_cuda_route(void *stream, int round_weights, const float *logits, uint64_t rows, uint32_t n_experts,
                  uint32_t top_k, int normalize, uint32_t *index, float *weight, float *margin);
/* dtype: QD_BF16 or QD_F16; h [n]. */
int qd_cuda_widen(void *stream, int dtype, const void *h, uint64_t n, float *x);
/* x [rows][ldx] rounded to BF16, h [rows][n] dense. */
int qd_cuda_narrow(void *stream, const float *x, uint64_t ldx, uint64_t rows, uint64_t n, void *h);

/* What calibration does to inputs of linears; see gpu/host_blocks.h. */
int qd_cuda_block_amax(void *stream, const float *x, uint64_t n_blocks, uint32_t *bits);
int qd_cuda_fake_quant(void *stream, float gs, const uint32_t *bits, const float *x, uint64_t n_blocks, float *y);
/* sum2[c] += x[t][c]^2, over tokens in order, in F64: quant/stats.h. */
int qd_cuda_moments(void *stream, const float *x, uint64_t ldx, uint64_t rows, uint64_t n, double *sum2);

/* What GPTQ takes: see gpu/solver.h. */
int qd_cuda_permute(void *stream, const float *h, uint64_t n, const uint32_t *order, float damp, float *a);
int qd_cuda_lower(void *stream, float *a, uint64_t n); /* zeros above the diagonal of a [n][n] */
int qd_cuda_gptq_gather(void *stream, const float *w, const float *q, uint64_t n_rows, uint64_t n,
                        const uint32_t *order, float gs, float *x);
int qd_cuda_gptq_panel(void *stream, const float *l, const uint32_t *order, uint64_t n, uint64_t n_rows, uint64_t first,
                       uint64_t end, const float *x, float *d, const float *sum, double *loss, uint8_t *codes,
                       uint8_t *scales);
int qd_cuda_squares(void *stream, const float *x, uint64_t n_rows, uint64_t n, double *ret);

#ifdef __cplusplus
}
#endif

#endif
