/* dev.h -- SEAM: one device that encodes weights. dev_host.c is the processor this runs on; gpu/cuda/dev_cuda.c a GPU,
 * opened by gpu/device.h.
 *
 * Operations take host memory and return when the result is there: how a device stages and streams is its own business.
 * Every operation is required. All devices give the same bytes: the arithmetic is gpu/kernels.h on each of them.
 * Threads: operations on one device may be called from several threads at once. */
#ifndef QD_GPU_DEV_H
#define QD_GPU_DEV_H

#include "base/dtype.h"
#include "base/err.h"
#include "gpu/nvfp4.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct qd_dev qd_dev;

typedef struct qd_dev_ops {
    /* Largest |w| of n elements (dtype BF16, F16 or F32; w aligned to the element); *ret_finite false when a NaN or an
     * infinity is among them (then *ret_amax is not meaningful; the caller looks for its place). */
    qd_code (*amax)(qd_dev *d, qd_dtype dtype, const void *w, uint64_t n, float *ret_amax, bool *ret_finite,
                    qd_err *err);
    /* Encodes n_blocks blocks of 16 consecutive elements; see gpu/nvfp4.h for rules, buffers and sums. */
    qd_code (*nvfp4_encode)(qd_dev *d, const qd_nvfp4_tile *t, qd_nvfp4_sums *ret_sums, qd_err *err);
    void (*free)(qd_dev *d);
} qd_dev_ops;

struct qd_dev {
    const qd_dev_ops *ops;
    const char *name; /* "cpu (avx2)" */
    void *ctx;
};

/* isa: NULL for the best this processor has, or "scalar", "generic", "avx2", "avx512" (tests); QD_E_UNSUPPORTED if it
 * cannot. */
QD_MUST_CHECK qd_code qd_dev_open_host(const char *isa, qd_dev **ret, qd_err *err);
/* A tile that some device encodes. Errors: QD_E_UNSUPPORTED (dtype, rule, arithmetic), QD_E_INTERNAL (global scale,
 * rows of column weights). */
QD_MUST_CHECK qd_code qd_dev_check_tile(const qd_dev *d, const qd_nvfp4_tile *t, qd_err *err);
static inline void qd_dev_free(qd_dev *d)
{
    if (d != NULL) d->ops->free(d);
}

#endif
