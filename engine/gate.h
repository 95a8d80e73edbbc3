/* gate.h -- the quality gate: the quantized model against its source on samples that calibration did not see. */
#ifndef QD_ENGINE_GATE_H
#define QD_ENGINE_GATE_H

#include "calib/stream.h"
#include "engine/gang.h"
#include "engine/job.h"

/* Both streams are behind the last layer and hold t; in a gang each rank's those of its part, from token first_row on.
 * Sums are in the order of tokens. Errors: those of qd_stream_logits(). */
QD_MUST_CHECK qd_code qd_gate_measure(qd_stream *source, qd_stream *quantized, const qd_tokens *t, uint64_t first_row,
                                      qd_gang *gang, qd_job_quality *ret, qd_err *err);

#endif
