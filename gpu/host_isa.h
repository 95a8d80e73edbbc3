/* host_isa.h -- private to gpu/: one table for each instruction set that the host encoder is compiled for. */
#ifndef QD_GPU_HOST_ISA_H
#define QD_GPU_HOST_ISA_H

#include "base/dtype.h"
#include "gpu/nvfp4.h"

typedef struct qd_host_isa {
    const char *name;
    /* Encodes whole groups of blocks from the front of the tile and adds to *sums; returns how many blocks that were.
     * The caller does the rest with the scalar reference. */
    uint64_t (*encode)(const qd_nvfp4_tile *t, qd_nvfp4_sums *sums);
    /* Largest magnitude of the first elements as an integer (the bits without the sign), *ret_n of them. */
    uint32_t (*amax_bits)(qd_dtype dtype, const void *w, uint64_t n, uint64_t *ret_n);
} qd_host_isa;

extern const qd_host_isa qd_host_generic, qd_host_generic16;
#if defined(__x86_64__)
extern const qd_host_isa qd_host_avx2, qd_host_avx512;
#endif

#endif
