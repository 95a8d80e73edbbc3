/* quantized.h -- the NVFP4 linears of a finished model directory, whichever format names them. */
#ifndef QD_ENGINE_QUANTIZED_H
#define QD_ENGINE_QUANTIZED_H

#include "ckpt/arch.h"
#include "quant/format.h"

typedef struct qd_qlinear {
    const char *name;                /* module */
    const qd_tensor *codes, *scales; /* of the checkpoint */
    uint64_t rows, cols;
    float gs; /* divisor, whatever the format stores */
    qd_place place;
    const char *fuse_key; /* equal keys must have equal gs: loaders fuse them */
} qd_qlinear;

typedef struct qd_quantized {
    qd_arena arena;
    const qd_format *format; /* NULL: nothing is quantized */
    qd_qlinear *linears;     /* by layer, then name */
    uint32_t n_linears;
} qd_quantized;

/* c must outlive *ret (zeroed before, qd_quantized_done() after). A directory without NVFP4 linears is no error.
 * Errors: QD_E_INPUT for tensors that are missing, of wrong dtype or shape, or a global scale that is not finite and >
 * 0. */
QD_MUST_CHECK qd_code qd_quantized_open(const qd_ckpt *c, qd_quantized *ret, qd_err *err);
void qd_quantized_done(qd_quantized *q);
/* Sets of linears that loaders fuse but whose global scales differ; *ret_first names a member of the first. */
uint32_t qd_quantized_unequal_sets(const qd_quantized *q, const char **ret_first);

#endif
