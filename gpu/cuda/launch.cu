/* launch.cu -- kernel, grid and block of a launch. */
#include "gpu/cuda/args.h"
#include "gpu/cuda/launch.h"

#define AMAX_THREADS   256u
#define AMAX_LOADS     4u    /* of 16 bytes, a thread has at least, while the grid can grow */
#define AMAX_GRID_MAX  2048u /* more blocks only add atomics */
#define ENCODE_THREADS 128u
#define GRID_MAX       0x7fffffffu

static int aligned(const void *p, uintptr_t to)
{
    return p != 0 && (uintptr_t)p % to == 0;
}

int qd_cuda_amax(int dtype, const void *w, uint64_t n, uint32_t *amax_bits, void *stream)
{
    const qd_cuda_amax_args args = {w, n, amax_bits};
    if (!aligned(w, 16) || !aligned(amax_bits, 4)) return QD_CUDA_INVALID;
    const uint64_t per_block = (uint64_t)AMAX_THREADS * AMAX_LOADS * (dtype == QD_F32 ? 4 : 8);
    const uint64_t wanted = n / per_block + (n % per_block != 0);
    const uint64_t grid = wanted < AMAX_GRID_MAX ? wanted : AMAX_GRID_MAX;
    switch (dtype) {
#define X(type, suffix) \
    case type:          \
        return grid == 0 ? 0 : QD_LAUNCH(qd_k_amax_##suffix, grid, AMAX_THREADS, stream, &args);
        QD_CUDA_DTYPES(X)
#undef X
    default:
        return QD_CUDA_INVALID;
    }
}

enum {
    FAMILY_CT = QD_RULE_COUNT /* after the rules of fp32 arithmetic */
};

/* The kernel family of a tile: its rule, or FAMILY_CT; -1 when there is none. */
static int family_of(const qd_nvfp4_tile *t)
{
    switch (t->arith) {
    case QD_ARITH_FP32:
        return (int)t->rule >= 0 && (int)t->rule < (int)QD_RULE_COUNT ? (int)t->rule : -1;
    case QD_ARITH_CT_BF16:
    case QD_ARITH_CT_F16:
    case QD_ARITH_CT_F32:
        return t->rule == QD_RULE_MINMAX ? (int)FAMILY_CT : -1;
    default:
        return -1;
    }
}

#define X(type, suffix)                                                                                  \
    static int encode_##suffix(int family, uint64_t grid, const qd_cuda_encode_args *args, void *stream) \
    {                                                                                                    \
        switch (family) {                                                                                \
        case QD_RULE_MINMAX:                                                                             \
            return QD_LAUNCH(qd_k_minmax_##suffix, grid, ENCODE_THREADS, stream, args);                  \
        case QD_RULE_FOUR_OVER_SIX:                                                                      \
            return QD_LAUNCH(qd_k_four_over_six_##suffix, grid, ENCODE_THREADS, stream, args);           \
        case QD_RULE_MSE:                                                                                \
            return QD_LAUNCH(qd_k_mse_##suffix, grid, ENCODE_THREADS, stream, args);                     \
        case FAMILY_CT:                                                                                  \
            return QD_LAUNCH(qd_k_ct_##suffix, grid, ENCODE_THREADS, stream, args);                      \
        default:                                                                                         \
            return QD_CUDA_INVALID;                                                                      \
        }                                                                                                \
    }
QD_CUDA_DTYPES(X)
#undef X

int qd_cuda_nvfp4_encode(const qd_nvfp4_tile *t, const qd_cuda_block_sums *sums, void *stream)
{
    const uint64_t grid = t->n_blocks / ENCODE_THREADS + (t->n_blocks % ENCODE_THREADS != 0);
    const int family = family_of(t);
    if (family < 0 || grid > GRID_MAX || !aligned(t->w, 16) || !aligned(t->codes, 8) || !aligned(t->scales, 1) ||
        !aligned(sums->err2, 4) || !aligned(sums->w2, 4) || !aligned(sums->flags, 1))
        return QD_CUDA_INVALID;
    if (t->col_weight != 0 && (t->rule != QD_RULE_MSE || t->blocks_per_row == 0)) return QD_CUDA_INVALID;
    const qd_cuda_encode_args args = {t->w,        t->col_weight, t->blocks_per_row, t->n_blocks,
                                      t->codes,    t->scales,     sums->err2,        sums->w2,
                                      sums->flags, t->gs,         (int32_t)t->arith};
    switch (t->dtype) {
#define X(type, suffix) \
    case type:          \
        return grid == 0 ? 0 : encode_##suffix(family, grid, &args, stream);
        QD_CUDA_DTYPES(X)
#undef X
    default:
        return QD_CUDA_INVALID;
    }
}
