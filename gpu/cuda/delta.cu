/* delta.cu -- the gated delta rule token by token: the definition, where the host works in chunks. A block holds some
 * columns of one head's state, each shared by QD_CUDA_DELTA_PARTS threads that hold every 16th row of it.
 *
 * Per token: S <- exp(g) S; u = beta (v - k^T S); S <- S + k u^T; o = q^T S. Source: Yang et al., Gated Delta Networks
 * (2412.06464), equation 10. */
#include "gpu/cuda/forward_args.h"
#include "gpu/cuda/rows.h"

enum {
    COLS = QD_CUDA_DELTA_COLS,
    PARTS = QD_CUDA_DELTA_PARTS,
    ROWS = QD_CUDA_DELTA_KEYS / QD_CUDA_DELTA_PARTS /* of a thread */
};

/* x [n] to y, to unit length and scaled, by the first half warp; the others only take part in its warp operations. */
QD_DEVICE void normalize(const float *x, uint32_t n, float scale, float *y, uint32_t part, int works)
{
    const float f = 1.0f / sqrtf(lanes_squares(x, works ? n : 0, part) + 1e-6f);
    for (uint32_t i = part; works && i < n; i += PARTS) y[i] = x[i] * f * scale;
}

/* blockDim.x = COLS * PARTS. */
QD_KERNEL(qd_k_delta, qd_cuda_delta_args)
{
    __shared__ float q[QD_CUDA_DELTA_KEYS], k[QD_CUDA_DELTA_KEYS];
    const uint32_t part = threadIdx.x % PARTS, group = threadIdx.x / PARTS;
    const uint32_t head = blockIdx.x / a.col_blocks, col = blockIdx.x % a.col_blocks * COLS + group;
    const uint32_t key_head = head / (a.n_v_heads / a.n_k_heads), key_dim = a.n_k_heads * a.k_dim;
    const int owns = col < a.v_dim;
    const float q_scale = 1.0f / sqrtf((float)a.k_dim);
    float s[ROWS];
    for (int i = 0; i < ROWS; i++) s[i] = 0;
    for (uint64_t t = 0; t < a.n_tokens; t++) {
        const float *row = a.qkv + t * a.qkv_token;
        const float beta = a.beta[t * a.n_v_heads + head], keep = qd_exp(a.g[t * a.n_v_heads + head]);
        __syncthreads(); /* the token before has been read */
        normalize(row + key_head * a.k_dim, a.k_dim, q_scale, q, part, group == 0);
        normalize(row + key_dim + key_head * a.k_dim, a.k_dim, 1.0f, k, part, group == 1);
        __syncthreads();
        float seen = 0, out = 0;
        QD_UNROLL
        for (uint32_t i = 0; i < ROWS; i++)
            if (i * PARTS + part < a.k_dim) {
                s[i] *= keep;
                seen += k[i * PARTS + part] * s[i];
            }
        seen = lanes_sum(seen);
        const float u = owns ? beta * (row[2 * key_dim + head * a.v_dim + col] - seen) : 0.0f;
        QD_UNROLL
        for (uint32_t i = 0; i < ROWS; i++)
            if (i * PARTS + part < a.k_dim) {
                s[i] += k[i * PARTS + part] * u;
                out += q[i * PARTS + part] * s[i];
            }
        out = lanes_sum(out);
        if (owns && part == 0) a.out[(t * a.n_v_heads + head) * a.v_dim + col] = qd_rounded(out, a.bf16);
    }
}
