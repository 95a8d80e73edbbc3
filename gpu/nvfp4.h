/* nvfp4.h -- the terms of an NVFP4 encode, shared by host, CUDA and their callers.
 *
 * Format: 4-bit E2M1 codes, an E4M3 scale for each block of 16 along K, one float32 global scale gs a tensor
 * (compressed-tensors' divisor convention):  w ~= e2m1(code) * e4m3(scale) / gs.  Codes are packed two a byte, even
 * element in the low nibble. */
#ifndef QD_GPU_NVFP4_H
#define QD_GPU_NVFP4_H

#include <stdint.h>

enum {
    QD_NVFP4_BLOCK = 16
};

/* How a block's E4M3 scale is chosen. */
typedef enum qd_nvfp4_rule {
    QD_RULE_MINMAX,        /* amax / 6 */
    QD_RULE_FOUR_OVER_SIX, /* amax / 6 or amax / 4, whichever has the smaller squared error (Four Over Six, arXiv
                              2512.02010) */
    QD_RULE_MSE, /* the E4M3 code with the smallest weighted squared error, swept between proven bounds (ScaleSweep,
                    arXiv 2606.07618) */
    QD_RULE_COUNT
} qd_nvfp4_rule;

/* Which arithmetic. */
typedef enum qd_nvfp4_arith {
    QD_ARITH_FP32,    /* scales and search in float32, see gpu/kernels.h */
    QD_ARITH_CT_BF16, /* compressed-tensors 0.20, bit for bit, for weights of that dtype; min-max only */
    QD_ARITH_CT_F16,
    QD_ARITH_CT_F32,
    QD_ARITH_COUNT
} qd_nvfp4_arith;

typedef struct qd_nvfp4_tile {
    int dtype; /* qd_dtype of w: QD_BF16, QD_F16 or QD_F32 */
    qd_nvfp4_rule rule;
    qd_nvfp4_arith arith;
    float gs;      /* finite, > 0: qd_nvfp4_global() of the amax over the whole fused set */
    const void *w; /* [n_blocks][16], finite, aligned to the element */
    const float
        *col_weight; /* MSE only: NULL, or [blocks_per_row][16] weights >= 0 of the squared error, a row of w long */
    uint64_t
        blocks_per_row; /* used with col_weight: block b has column block b % blocks_per_row; a tile starts at a row */
    uint64_t n_blocks;
    uint8_t *codes;  /* [n_blocks][8] */
    uint8_t *scales; /* [n_blocks] */
} qd_nvfp4_tile;

/* Sums over the tile's blocks in order, each block's own sum in float32, added up in float64: the same bits on every
 * device. */
typedef struct qd_nvfp4_sums {
    double err2;        /* sum of (w - decoded)^2 * gs^2 (unweighted) */
    double w2;          /* sum of w^2 * gs^2 */
    uint64_t n_clipped; /* blocks whose largest element lies beyond 6 * scale */
    uint64_t n_zero;    /* blocks in which every code is zero */
} qd_nvfp4_sums;

#endif
