/* gptq.cu -- GPTQ (gpu/solver.h): 16 threads a row, of which each tries one scale of a block; what must be ready before
 * and measured behind. */
#include "gpu/cuda/forward_args.h"
#include "gpu/cuda/rows.h"
#include "gpu/gptq.h"

enum {
    B = QD_NVFP4_BLOCK,
    PANEL = QD_GPTQ_PANEL,
    ROWS = QD_CUDA_GPTQ_ROWS
};

/* The number of the half warp's least loss, the first of equal ones, and the loss; all 16 threads get it. */
QD_DEVICE int least(float *loss, int number)
{
    for (int step = B / 2; step > 0; step /= 2) {
        const float other = qd_bits_f32(__shfl_xor_sync(QD_FULL_WARP, qd_f32_bits(*loss), step));
        const int from = (int)__shfl_xor_sync(QD_FULL_WARP, (uint32_t)number, step);
        if (other < *loss || (other == *loss && from < number)) {
            *loss = other;
            number = from;
        }
    }
    return number;
}

/* 16 codes of a row to where their columns are in the weight. */
QD_DEVICE void store(const uint32_t *code, const uint32_t *order, uint8_t *to)
{
    uint64_t packed = 0;
    for (int i = 0; i < B; i++) packed |= (uint64_t)code[i] << (order[i] % B * 4);
    *(uint64_t *)to = packed; /* little-endian, as every GPU's host */
}

/* A block: ROWS rows, B threads each. */
QD_KERNEL(qd_k_gptq_panel, qd_cuda_gptq_args)
{
    __shared__ qd_gptq_block t;
    __shared__ float sum[ROWS][PANEL], error[ROWS][B];
    __shared__ uint32_t code[ROWS][B];
    const uint32_t lane = threadIdx.x % B, at = threadIdx.x / B;
    const uint64_t row = (uint64_t)blockIdx.x * ROWS + at;
    const int works = row < a.n_rows; /* others take part in barriers, on the first row */
    const uint64_t here = works ? row : 0;
    for (uint64_t i = lane; i < a.end - a.first; i += B) sum[at][i] = a.sum[here * PANEL + i];
    for (uint64_t b = a.end - B;; b -= B) {
        float w[B], target[B], my_error = 0.0f, loss = (float)INFINITY;
        uint32_t my_code = 0;
        __syncthreads(); /* the block before has been read */
        const float own = a.l[(b + lane) * a.n + b + lane];
        t.share[at][lane] = at > lane ? a.l[(b + at) * a.n + b + lane] / own : 0.0f;
        if (at == 0) {
            t.weight[lane] = own * own;
            t.inverse[lane] = 1.0f / own;
        }
        __syncthreads();
        QD_UNROLL
        for (int i = 0; i < B; i++) {
            w[i] = a.x[here * a.n + b + (uint64_t)i];
            target[i] = w[i] + sum[at][b - a.first + (uint64_t)i] * t.inverse[i];
        }
        const float most = qd_gptq_largest(&t, w, target);
        if (lane < QD_GPTQ_TRIES)
            loss = qd_gptq_try(&t, w, target, qd_gptq_scale(most, (int)lane), -1, &my_code, &my_error);
        loss = loss < (float)INFINITY ? loss : (float)INFINITY; /* also for NaN */
        const int pick = least(&loss, (int)lane);
        const uint32_t scale = loss < (float)INFINITY ? qd_gptq_scale(most, pick) : 1u;
        loss = qd_gptq_try(&t, w, target, scale, (int)lane, &my_code, &my_error);
        error[at][lane] = my_error;
        code[at][lane] = my_code;
        if (works) a.d[row * a.n + b + lane] = my_error;
        __syncthreads();
        if (works && lane == 0) {
            store(code[at], a.order + b, a.codes + (row * a.n + a.order[b] / B * B) / 2);
            a.scales[row * (a.n / B) + a.order[b] / B] = (uint8_t)scale;
            a.loss[row] += (double)loss;
        }
        for (uint64_t i = lane; i < b - a.first; i += B) {
            float s = sum[at][i];
            for (uint64_t j = 0; j < B; j++) s = s + error[at][j] * a.l[(b + j) * a.n + a.first + i];
            sum[at][i] = s;
        }
        if (b == a.first) break;
    }
}

/* A thread an element. */
QD_KERNEL(qd_k_permute, qd_cuda_permute_args)
{
    const uint64_t at = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x, i = at / a.n, j = at % a.n;
    if (i >= a.n) return;
    float v = 0.0f;
    if (j <= i) {
        const uint64_t p = a.order[i], q = a.order[j];
        v = a.h[p > q ? p * a.n + q : q * a.n + p];
        if (i == j) v = v + a.damp;
    }
    a.a[at] = v;
}

/* Zeros above the diagonal. A thread an element. */
QD_KERNEL(qd_k_lower, qd_cuda_permute_args)
{
    const uint64_t at = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x, i = at / a.n, j = at % a.n;
    if (i < a.n && j > i) a.a[at] = 0.0f;
}

/* A thread an element. */
QD_KERNEL(qd_k_gptq_gather, qd_cuda_gather_args)
{
    const uint64_t at = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= a.total) return;
    const uint64_t from = at / a.n * a.n + a.order[at % a.n];
    a.x[at] = (a.q != 0 ? a.w[from] - a.q[from] : a.w[from]) * a.gs;
}

/* A thread a row. */
QD_KERNEL(qd_k_squares, qd_cuda_squares_args)
{
    const uint64_t r = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= a.n_rows) return;
    double sum = 0;
    for (uint64_t i = 0; i < a.n; i++) sum += (double)a.x[r * a.n + i] * (double)a.x[r * a.n + i];
    a.ret[r] = sum;
}
