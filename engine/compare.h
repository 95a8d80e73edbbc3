/* compare.h -- a quantized directory against its source: decoding error of each linear, and whether all else is the
 * same. */
#ifndef QD_ENGINE_COMPARE_H
#define QD_ENGINE_COMPARE_H

#include "base/cancel.h"
#include "engine/quantized.h"

typedef struct qd_compared {
    const qd_qlinear *linear;
    double rel_error, snr_db, max_abs_error; /* snr_db infinite for an exact copy */
    double err2, w2;                         /* sums of squares of error and weight */
} qd_compared;

typedef struct qd_compare_result {
    qd_arena arena;
    qd_compared *linears; /* worst relative error first */
    uint32_t n_linears;
    double rel_error;                                     /* over all of them */
    uint32_t n_same, n_differ;                            /* tensors on both sides: byte for byte the same, or not */
    const char **differ, **only_source, **only_quantized; /* names */
    uint32_t n_only_source, n_only_quantized;
} qd_compare_result;

/* Bounded memory: a few MiB a thread. *ret zeroed before, qd_compare_done() after.
 * Errors: QD_E_INPUT when a linear has no counterpart of its shape in the source or a source dtype that cannot be read
 * as floats. */
QD_MUST_CHECK qd_code qd_compare(const qd_ckpt *source, const qd_ckpt *quantized, const qd_quantized *q,
                                 unsigned n_threads, qd_cancel *cancel, qd_compare_result *ret, qd_err *err);
void qd_compare_done(qd_compare_result *r);

#endif
