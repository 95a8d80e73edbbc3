/* norm.cu -- RMS norms over vectors, half a warp each. */
#include "gpu/cuda/forward_args.h"
#include "gpu/cuda/rows.h"

typedef enum norm_kind {
    PLAIN,
    PLUS_ONE,
    GATED
} norm_kind;

QD_DEVICE void norm(const qd_cuda_norm_args *a, norm_kind kind)
{
    const uint64_t v = (uint64_t)blockIdx.x * (blockDim.x / QD_SUM_LANES) + threadIdx.x / QD_SUM_LANES;
    const uint64_t r = v / a->n_heads, h = v % a->n_heads, n = v < a->n_vectors ? a->n : 0;
    const uint32_t lane = threadIdx.x % QD_SUM_LANES;
    const float *x = a->x + r * a->ldx + h * a->head_x;
    const float f = 1.0f / sqrtf(lanes_squares(x, n, lane) / (float)a->n + a->eps);
    float *y = a->y + r * a->ldy + h * a->head_y;
    for (uint64_t i = lane; i < n; i += QD_SUM_LANES) {
        if (kind == PLAIN)
            y[i] = qd_norm_plain(x[i], f, a->w[i], a->bf16);
        else if (kind == PLUS_ONE)
            y[i] = qd_norm_plus_one(x[i], f, a->w[i], a->bf16);
        else
            y[i] = qd_norm_gated(x[i], f, a->w[i], a->gate[r * a->ldg + h * a->n + i], a->bf16);
    }
}

QD_KERNEL(qd_k_norm_plain, qd_cuda_norm_args)
{
    norm(&a, PLAIN);
}

QD_KERNEL(qd_k_norm_plus_one, qd_cuda_norm_args)
{
    norm(&a, PLUS_ONE);
}

QD_KERNEL(qd_k_norm_gated, qd_cuda_norm_args)
{
    norm(&a, GATED);
}
