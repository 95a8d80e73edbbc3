/* layerwise.h -- quantization layer by layer along the calibration tokens: for methods that need to know what linears
 * read, and for the quality gate. docs/accuracy.md says what is collected when.
 *
 * It leaves the units of linears (and of norms and biases that scaling changed) written and journaled; the pipeline
 * does the rest. A layer is finished with the journal's line of its inputs; on a resume a finished layer is read back
 * from what is on disk. */
#ifndef QD_ENGINE_LAYERWISE_H
#define QD_ENGINE_LAYERWISE_H

#include "base/cancel.h"
#include "engine/journal.h"

#include "calib/forward.h"

typedef struct qd_layerwise_opts {
    const qd_tokens *calib; /* no sequences: none needed */
    const qd_tokens *held;  /* no sequences: no gate */
    const char *staging;    /* where finished layers are; of rank 0 */
    const char *spill_dir;  /* for hidden vectors; may be NULL */
    qd_journal *journal;
    const qd_job_events *events;
    qd_cancel *cancel;
} qd_layerwise_opts;

/* Adds to p->pass, which holds a plain calibration pass, what this one takes beyond it. layerwise_memory.c */
void qd_layerwise_measure(qd_plan *p, const qd_model_config *m, uint64_t n_held_tokens);
/* Quantizes every linear of run's plan that is not done and fills run->quality; ret_stats is of all passes
 * together. Errors: those of qd_forward_run(), of
 * the device and the sink; QD_E_INPUT for weights or inputs that are not finite; QD_E_QUALITY where the gate's limit is
 * passed; QD_E_CANCELED. */
QD_MUST_CHECK qd_code qd_layerwise_run(qd_run *run, const qd_layerwise_opts *o, qd_forward_stats *ret_stats,
                                       qd_err *err);

#endif
