/* gptq_block.h -- private to quant/: one block of 16 columns for 16 rows at a time. */
#ifndef QD_QUANT_GPTQ_BLOCK_H
#define QD_QUANT_GPTQ_BLOCK_H

#include "gpu/gptq.h"
#include "gpu/host_vec.h"

enum {
    QD_GPTQ_LANES = 16
};

/* [column][row]; columns are quantized from the last to the first. */
typedef struct qd_gptq_group {
    float w[QD_NVFP4_BLOCK][QD_GPTQ_LANES];
    float target[QD_NVFP4_BLOCK][QD_GPTQ_LANES]; /* what the columns of later blocks ask for */
    float error[QD_NVFP4_BLOCK][QD_GPTQ_LANES];  /* out: w - q */
    uint32_t code[QD_NVFP4_BLOCK][QD_GPTQ_LANES];
    uint32_t scale[QD_GPTQ_LANES];
    float loss[QD_GPTQ_LANES];
} qd_gptq_group;

/* Tries the E4M3 codes from three below largest / 6 to six above and keeps the one of the least loss. */
void qd_gptq_group_run(const qd_gptq_block *t, qd_gptq_group *g);

#endif
