/* pipeline.h -- runs a plan's tiles through a set of workers: reads, computation and writes overlap, memory is the
 * plan's. */
#ifndef QD_ENGINE_PIPELINE_H
#define QD_ENGINE_PIPELINE_H

#include "base/cancel.h"
#include "engine/delivery.h"

/* Runs every unit of run that is not done; in a gang, those of this rank, while delivery (NULL: one rank) takes what is
 * finished to rank 0. Calls progress from the calling thread about every 100 ms; *peak_bytes is
 * raised to the largest anonymous + shared resident memory seen. Errors: the first of any worker; QD_E_CANCELED when
 * the token is set. */
QD_MUST_CHECK qd_code qd_pipeline_run(qd_run *run, qd_journal *journal, qd_delivery *delivery,
                                      const qd_job_events *events, qd_cancel *cancel, uint64_t *peak_bytes,
                                      qd_err *err);

/* The bytes of progress and rate that a phase reports; shared with verification. */
typedef struct qd_meter {
    const qd_job_events *events;
    const char *phase;
    uint64_t total_bytes, start_ns, last_ns, resumed_bytes;
    int32_t n_layers;
} qd_meter;
void qd_meter_show(qd_meter *m, uint64_t done_bytes, uint64_t n_steps, int32_t layer, bool last);

#endif
