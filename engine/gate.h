/* gate.h -- the quality gate: the quantized model against its source on samples that calibration did not see. */
#ifndef QD_ENGINE_GATE_H
#define QD_ENGINE_GATE_H

#include "calib/stream.h"
#include "engine/gang.h"

typedef struct qd_gate {
    uint64_t n_tokens;                    /* 0: no gate */
    double kl, top1;                      /* mean KL(source || quantized) a token in nats; share of equal top tokens */
    double perplexity, source_perplexity; /* over all tokens but the first of each sample */
} qd_gate;

/* Both streams are behind the last layer and hold t; in a gang each rank's those of its part, from token first_row on.
 * Sums are in the order of tokens. Errors: those of qd_stream_logits(). */
QD_MUST_CHECK qd_code qd_gate_measure(qd_stream *source, qd_stream *quantized, const qd_tokens *t, uint64_t first_row,
                                      qd_gang *gang, qd_gate *ret, qd_err *err);

#endif
