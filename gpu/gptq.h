/* gptq.h -- one block of 16 columns of one row by GPTQ (quant/gptq.h has the equations), written once: what the threads
 * of a row run on a CUDA device, and what the host's vectorized form (quant/gptq_block.c) must equal bit for bit.
 *
 * Columns are quantized from the last to the first; everything is in units of 1 / gs. */
#ifndef QD_GPU_GPTQ_H
#define QD_GPU_GPTQ_H

#include "gpu/kernels.h"

/* Columns in registers; not where nvcc has a host compiler read this. */
#ifdef __CUDA_ARCH__
#define QD_GPTQ_UNROLL _Pragma("unroll")
#else
#define QD_GPTQ_UNROLL
#endif

enum {
    QD_GPTQ_PANEL = 128, /* columns for which those behind them are one product */
    QD_GPTQ_DOWN = 3,    /* E4M3 codes tried below and above largest / 6 */
    QD_GPTQ_UP = 6,
    QD_GPTQ_TRIES = QD_GPTQ_DOWN + 1 + QD_GPTQ_UP
};

typedef struct qd_gptq_block {
    float weight[QD_NVFP4_BLOCK];                /* L_ii^2 */
    float inverse[QD_NVFP4_BLOCK];               /* 1 / L_ii */
    float share[QD_NVFP4_BLOCK][QD_NVFP4_BLOCK]; /* [j][i] L_ji / L_ii, j > i; 0 elsewhere */
} qd_gptq_block;

/* w [16]: the weights; target [16]: what the columns of later blocks ask for. Largest magnitude of the block as it
 * would be without rounding: what a scale has to hold. */
QD_HD float qd_gptq_largest(const qd_gptq_block *t, const float *w, const float *target)
{
    float v[QD_NVFP4_BLOCK], most = 0.0f;
    QD_GPTQ_UNROLL
    for (int i = 0; i < QD_NVFP4_BLOCK; i++) v[i] = target[i];
    QD_GPTQ_UNROLL
    for (int j = QD_NVFP4_BLOCK - 1; j >= 0; j--) {
        const float a = fabsf(v[j]), d = w[j] - v[j];
        most = a > most ? a : most;
        QD_GPTQ_UNROLL
        for (int i = 0; i < j; i++) v[i] = v[i] + d * t->share[j][i];
    }
    return most;
}

/* The E4M3 code of try number 0 .. QD_GPTQ_TRIES - 1. */
QD_HD uint32_t qd_gptq_scale(float most, int number)
{
    int at = (int)qd_e4m3_from_f32(most / QD_E2M1_MAX) + number - QD_GPTQ_DOWN;
    at = at < 1 ? 1 : at;
    return (uint32_t)(at > QD_E4M3_MAX_CODE ? QD_E4M3_MAX_CODE : at);
}

/* The block under a scale: its loss; code and error (w - q) of column `keep`. */
QD_HD float qd_gptq_try(const qd_gptq_block *t, const float *w, const float *target, uint32_t scale_code, int keep,
                        uint32_t *ret_code, float *ret_error)
{
    const float scale = qd_e4m3_to_f32((uint8_t)scale_code), rcp = 1.0f / scale;
    float v[QD_NVFP4_BLOCK], loss = 0.0f;
    QD_GPTQ_UNROLL
    for (int i = 0; i < QD_NVFP4_BLOCK; i++) v[i] = target[i];
    QD_GPTQ_UNROLL
    for (int j = QD_NVFP4_BLOCK - 1; j >= 0; j--) {
        uint32_t code;
        float a = fabsf(v[j]) * rcp;
        a = a < QD_E2M1_MAX ? a : QD_E2M1_MAX;
        float q = qd_e2m1_round(a, &code) * scale;
        q = v[j] < 0.0f ? -q : q;
        const float e = v[j] - q, d = w[j] - q;
        loss = loss + t->weight[j] * (e * e);
        if (j == keep) {
            *ret_code = code | (v[j] < 0.0f ? 8u : 0u);
            *ret_error = d;
        }
        QD_GPTQ_UNROLL
        for (int i = 0; i < j; i++) v[i] = v[i] + d * t->share[j][i];
    }
    return loss;
}

#endif
