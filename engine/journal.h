/* journal.h -- finished units, a line each, so that a killed job goes on where it stood.
 *
 * First line: format and plan hash. Then one JSON line a unit: number, hash of what it left on disk, each linear's
 * sums; in a calibrated job also a line a layer: input amaxes and the output error. A torn last line is ignored;
 * whether the data really is on disk is checked against the hash on resume, so nothing is synced per unit. */
#ifndef QD_ENGINE_JOURNAL_H
#define QD_ENGINE_JOURNAL_H

#include "engine/run.h"

/* SEAM: a file of rank 0, or a member's queue to it (delivery.h). */
typedef struct qd_journal qd_journal;
typedef struct qd_journal_ops {
    qd_code (*add)(qd_journal *j, const qd_run *run, uint32_t unit, qd_hash128 hash, qd_err *err);
    qd_code (*add_inputs)(qd_journal *j, const qd_run *run, uint32_t layer, qd_err *err);
    void (*close)(qd_journal *j);
} qd_journal_ops;

struct qd_journal {
    const qd_journal_ops *ops;
};

/* Opens path for appending; a file that is missing, torn at the first line, or of another plan is begun anew
 * (*ret_fresh true). Otherwise every whole line is read: results into run->result, unit hashes into ret_hash[n_units],
 * ret_seen[n_units] true. */
QD_MUST_CHECK qd_code qd_journal_open(const char *path, bool resume, qd_run *run, bool *ret_seen, qd_hash128 *ret_hash,
                                      bool *ret_fresh, qd_journal **ret, qd_err *err);
/* Appends a finished unit in one write. Threads: any. */
static inline QD_MUST_CHECK qd_code qd_journal_add(qd_journal *j, const qd_run *run, uint32_t unit, qd_hash128 hash,
                                                   qd_err *err)
{
    return j->ops->add(j, run, unit, hash, err);
}
/* Appends the input amaxes of a layer's quantized linears. */
static inline QD_MUST_CHECK qd_code qd_journal_add_inputs(qd_journal *j, const qd_run *run, uint32_t layer, qd_err *err)
{
    return j->ops->add_inputs(j, run, layer, err);
}
static inline void qd_journal_close(qd_journal *j)
{
    if (j != NULL) j->ops->close(j);
}

#endif
