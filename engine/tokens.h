/* tokens.h -- the calibration tokens of a job. */
#ifndef QD_ENGINE_TOKENS_H
#define QD_ENGINE_TOKENS_H

#include "base/hash.h"
#include "calib/dataset.h"
#include "calib/forward.h"
#include "engine/job.h"

typedef struct qd_job_tokens {
    qd_dataset data;
    uint32_t n_held; /* of the samples: the last ones, for the quality gate */
    qd_hash128 hash; /* of all ids and lengths, and of the numerics id of the pass that reads them */
} qd_job_tokens;

/* From opts' files through the model's tokenizer and chat format; without files from the built-in set. Tells what was
 * left out by events->note. *ret zeroed before, qd_job_tokens_done() after. Errors: those of qd_dataset_load(),
 * qd_tokenizer_load(), qd_chat_load(), qd_model_config_read(). */
QD_MUST_CHECK qd_code qd_job_tokens_load(const qd_job_opts *opts, const qd_ckpt *c, const qd_job_events *events,
                                         qd_cancel *cancel, qd_job_tokens *ret, qd_err *err);
/* As many tokens as the settings say, all of them 0 and without a hash: for plans without a tokenizer. */
QD_MUST_CHECK qd_code qd_job_tokens_count(const qd_job_opts *opts, qd_job_tokens *ret, qd_err *err);
void qd_job_tokens_done(qd_job_tokens *t);
static inline qd_tokens qd_job_tokens_view(const qd_job_tokens *t)
{
    return (qd_tokens){.ids = t->data.ids, .starts = t->data.starts, .n_seqs = t->data.n_samples - t->n_held};
}
/* Samples are of one length, so they begin as the first ones do. */
static inline qd_tokens qd_job_tokens_held(const qd_job_tokens *t)
{
    return (qd_tokens){.ids = t->data.ids + (uint64_t)(t->data.n_samples - t->n_held) * t->data.len,
                       .starts = t->data.starts,
                       .n_seqs = t->n_held};
}

#endif
