/* host_route.c -- which experts a token goes to, and the way there and back. */
#include "gpu/host_ops.h"
#include "gpu/host_vec.h"

#include <string.h>

void qd_host_copy(const qd_lane *l, const float *x, uint64_t ldx, uint64_t head_x, uint64_t rows, uint64_t n_heads,
                  uint64_t n, float *y, uint64_t ldy, uint64_t head_y)
{
    (void)l;
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t h = 0; h < n_heads; h++)
            memcpy(y + r * ldy + h * head_y, x + r * ldx + h * head_x, n * sizeof(float));
}

void qd_host_gather(const qd_lane *l, const float *x, uint64_t ldx, const uint32_t *index, uint64_t rows, uint64_t n,
                    float *y)
{
    (void)l;
    for (uint64_t r = 0; r < rows; r++) memcpy(y + r * n, x + index[r] * ldx, n * sizeof(float));
}

QD_VEC static void add_weighted(float *x, const float *y, float w, uint64_t n, bool bf16)
{
    if (bf16)
        for (uint64_t i = 0; i < n; i++) x[i] = qd_add_weighted(x[i], y[i], w, 1);
    else
        for (uint64_t i = 0; i < n; i++) x[i] = qd_add_weighted(x[i], y[i], w, 0);
}

void qd_host_scatter_add(const qd_lane *l, const float *y, const uint32_t *index, const float *weight, uint64_t rows,
                         uint64_t n, float *x, uint64_t ldx)
{
    for (uint64_t r = 0; r < rows; r++) add_weighted(x + index[r] * ldx, y + r * n, weight[r], n, l->bf16);
}

void qd_host_route(const qd_lane *l, const float *logits, uint64_t rows, uint32_t n_experts, uint32_t top_k,
                   bool normalize, bool round_weights, uint32_t *index, float *weight, float *margin)
{
    for (uint64_t r = 0; r < rows; r++)
        qd_route_row(logits + r * n_experts, n_experts, top_k, normalize, round_weights && l->bf16, index + r * top_k,
                     weight + r * top_k, margin + r);
}
