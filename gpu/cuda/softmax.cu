/* softmax.cu -- causal softmax over rows of scores, half a warp each, in two passes as on the host. */
#include "gpu/cuda/forward_args.h"
#include "gpu/cuda/rows.h"

QD_KERNEL(qd_k_softmax, qd_cuda_softmax_args)
{
    const uint64_t v = (uint64_t)blockIdx.x * (blockDim.x / QD_SUM_LANES) + threadIdx.x / QD_SUM_LANES;
    const uint64_t q = a.first_query + v % a.n_queries;
    const uint64_t from = a.window != 0 && q + 1 > a.window ? q + 1 - a.window - a.first_key : 0;
    const uint64_t to = q + 1 - a.first_key;
    const uint64_t n = v < a.n_rows ? to - from : 0, keys = v < a.n_rows ? a.n_keys : 0;
    const uint32_t lane = threadIdx.x % QD_SUM_LANES;
    float *row = a.s + v * a.n_keys, *s = row + from;
    float top = n != 0 ? qd_score(s[0], a.scale, a.bf16) : 0.0f, sum = 0;
    for (uint64_t i = lane; i < n; i += QD_SUM_LANES) {
        const float x = qd_score(s[i], a.scale, a.bf16);
        top = x > top ? x : top;
    }
    top = lanes_max(top);
    for (uint64_t i = lane; i < n; i += QD_SUM_LANES) {
        s[i] = qd_exp(qd_score(s[i], a.scale, a.bf16) - top);
        sum += s[i];
    }
    sum = lanes_sum(sum);
    for (uint64_t i = lane; i < n; i += QD_SUM_LANES) s[i] = qd_rounded(s[i] / sum, a.bf16);
    for (uint64_t i = lane; i < keys; i += QD_SUM_LANES)
        if (i < from || i >= to) row[i] = 0;
}
