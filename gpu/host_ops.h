/* host_ops.h -- private to gpu/: the host's operations by file; ops_host.c puts them into the table. See ops.h. */
#ifndef QD_GPU_HOST_OPS_H
#define QD_GPU_HOST_OPS_H

#include "gpu/ops.h"

/* host_gemm.c: C [m][n] = A [m][k] B, one thread, oneDNN. b_rows: B is [n][k] (its rows are used), else [k][n]. Adds to
 * C where add. */
QD_MUST_CHECK qd_code qd_host_gemm(qd_lane *l, bool b_rows, uint64_t m, uint64_t n, uint64_t k, const float *a,
                                   uint64_t lda, const float *b, uint64_t ldb, bool add, float *c, uint64_t ldc,
                                   qd_err *err);
/* C [m][n] += A^T B with A [k][m], B [k][n]. */
QD_MUST_CHECK qd_code qd_host_gemm_at(qd_lane *l, uint64_t m, uint64_t n, uint64_t k, const float *a, uint64_t lda,
                                      const float *b, uint64_t ldb, float *c, uint64_t ldc, qd_err *err);
/* Sums of outer products in F32. */
qd_code qd_host_gram_begin_f32(qd_lane *l, const float *x, uint64_t ld, uint64_t rows, uint64_t n, qd_gram *ret,
                               qd_err *err);
qd_code qd_host_gram_f32(qd_lane *l, const qd_gram *g, uint64_t i, uint64_t m, uint64_t j, uint64_t n, float *c,
                         uint64_t ldc, qd_err *err);
void qd_host_numerics(const qd_ops *ops, char *ret);
/* host_lane.c */
void qd_host_close(const qd_ops *ops);
qd_code qd_host_reserve(const qd_ops *ops, uint64_t bytes, qd_err *err);
uint64_t qd_host_memory_peak(const qd_ops *ops);
qd_code qd_host_lane_open(qd_lane *l, qd_err *err);
void qd_host_lane_close(qd_lane *l);
qd_code qd_host_upload(qd_lane *l, qd_dtype dtype, const void *from, uint64_t n, float *to, qd_err *err);
qd_code qd_host_download(qd_lane *l, qd_dtype dtype, const float *from, uint64_t n, void *to, qd_err *err);
void qd_host_zero(const qd_lane *l, float *x, uint64_t n);
qd_code qd_host_finish(qd_lane *l, qd_err *err);
/* host_blocks.c */
void qd_host_op_block_amax(const qd_lane *l, const float *x, uint64_t n_blocks, uint32_t *bits);
void qd_host_op_fake_quant(const qd_lane *l, float gs, const uint32_t *bits, const float *x, uint64_t n_blocks,
                           float *y);
/* host_linear.c */
qd_code qd_host_linear(qd_lane *l, const float *x, uint64_t m, uint64_t ldx, const qd_weight *w, float *y, uint64_t ldy,
                       qd_err *err);
qd_code qd_host_weight_pack(const qd_ops *ops, qd_weight *w, bool bf16, qd_tasks *tasks, qd_err *err);
void qd_host_weight_unpack(qd_weight *w);
/* host_bf16.c: the same with BF16 products in hardware */
qd_code qd_host_bf16_linear(qd_lane *l, const float *x, uint64_t m, uint64_t ldx, const qd_weight *w, float *y,
                            uint64_t ldy, qd_err *err);
qd_code qd_host_bf16_pack(const qd_ops *ops, qd_weight *w, bool bf16, qd_tasks *tasks, qd_err *err);
void qd_host_bf16_unpack(qd_weight *w);
/* host_int8.c: with integer products, for calibration; x86-64 with AVX-512 VNNI */
qd_code qd_host_int8_linear(qd_lane *l, const float *x, uint64_t m, uint64_t ldx, const qd_weight *w, float *y,
                            uint64_t ldy, qd_err *err);
qd_code qd_host_int8_pack(const qd_ops *ops, qd_weight *w, bool bf16, qd_tasks *tasks, qd_err *err);
qd_code qd_host_int8_pack_coarse(const qd_ops *ops, qd_weight *w, bool bf16, qd_tasks *tasks, qd_err *err);
void qd_host_int8_unpack(qd_weight *w);
/* host_gram.c: the same for sums of outer products */
qd_code qd_host_gram_begin(qd_lane *l, const float *x, uint64_t ld, uint64_t rows, uint64_t n, qd_gram *ret,
                           qd_err *err);
qd_code qd_host_gram(qd_lane *l, const qd_gram *g, uint64_t i, uint64_t m, uint64_t j, uint64_t n, float *c,
                     uint64_t ldc, qd_err *err);
/* host_attention.c, host_int8_attention.c, host_delta.c */
qd_code qd_host_int8_attention(qd_lane *l, const qd_attention *a, qd_err *err);
qd_code qd_host_attention(qd_lane *l, const qd_attention *a, qd_err *err);
qd_code qd_host_delta_rule(qd_lane *l, const qd_delta *d, qd_err *err);
/* host_norm.c */
void qd_host_rms_norm(const qd_lane *l, const float *x, uint64_t ldx, uint64_t rows, uint64_t n_heads, uint64_t head_x,
                      uint64_t n, const float *w, qd_norm_kind kind, float eps, float *y, uint64_t ldy,
                      uint64_t head_y);
void qd_host_gated_norm(const qd_lane *l, const float *x, const float *gate, uint64_t ldg, uint64_t rows,
                        uint64_t n_heads, uint64_t n, const float *w, float eps, float *y);
/* host_elementwise.c */
void qd_host_rope(const qd_lane *l, float *x, uint64_t rows, uint64_t ldx, uint64_t n_heads, uint64_t head_stride,
                  uint64_t rot, const float *cos, const float *sin);
void qd_host_silu_mul(const qd_lane *l, float *g, uint64_t ldg, const float *u, uint64_t ldu, uint64_t rows,
                      uint64_t n);
void qd_host_gate(const qd_lane *l, float *x, uint64_t ldx, const float *gate, uint64_t ldg, uint64_t rows,
                  uint64_t n_heads, uint64_t gate_head, uint64_t n);
void qd_host_gate_rows(const qd_lane *l, float *x, uint64_t ldx, const float *gate, uint64_t rows, uint64_t n);
void qd_host_add(const qd_lane *l, float *x, uint64_t ldx, const float *y, uint64_t ldy, uint64_t rows, uint64_t n);
void qd_host_load(qd_dtype dtype, const void *from, uint64_t n, float *to);
void qd_host_store(qd_dtype dtype, const float *from, uint64_t n, void *to);
void qd_host_round(float *x, uint64_t ldx, uint64_t rows, uint64_t n, const float *bias, bool bf16);
/* host_conv.c */
void qd_host_conv_silu(const qd_lane *l, const float *x, uint64_t ldx, uint64_t rows, uint64_t n, const float *w,
                       uint64_t taps, float *y, uint64_t ldy);
void qd_host_decay(const qd_lane *l, const float *b, uint64_t ldb, const float *a, uint64_t lda, const float *a_log,
                   const float *dt_bias, uint64_t rows, uint64_t n, float *beta, float *g);
/* host_route.c */
void qd_host_copy(const qd_lane *l, const float *x, uint64_t ldx, uint64_t head_x, uint64_t rows, uint64_t n_heads,
                  uint64_t n, float *y, uint64_t ldy, uint64_t head_y);
void qd_host_gather(const qd_lane *l, const float *x, uint64_t ldx, const uint32_t *index, uint64_t rows, uint64_t n,
                    float *y);
void qd_host_scatter_add(const qd_lane *l, const float *y, const uint32_t *index, const float *weight, uint64_t rows,
                         uint64_t n, float *x, uint64_t ldx);
void qd_host_route(const qd_lane *l, const float *logits, uint64_t rows, uint32_t n_experts, uint32_t top_k,
                   bool normalize, bool round_weights, uint32_t *index, float *weight, float *margin);

#endif
