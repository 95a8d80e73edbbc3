/* selftest.h -- whether this machine computes what it should: arithmetic and device against plain scalar code, bit for
 * bit, and small jobs over a model made up on the spot. For installed machines; well under a minute. */
#ifndef QD_ENGINE_SELFTEST_H
#define QD_ENGINE_SELFTEST_H

#include "base/cancel.h"
#include "gpu/dev.h"
#include "gpu/ops.h"

typedef struct qd_selftest_check {
    const char *name;
    uint64_t n_cases, n_failed;
    double seconds;
    char what[256]; /* of a failed check: the first case, expected, found; else what was done, or "" */
} qd_selftest_check;

typedef struct qd_selftest_opts {
    const char *device; /* "cpu", or "gpu0", "gpu1", .. */
    const char *dir;    /* where a directory of its own is made and removed; NULL: $TMPDIR, else /tmp */
    unsigned n_threads; /* 0: one a processor */
    qd_cancel *cancel;  /* may be NULL */
    void *ctx;
    void (*told)(void *ctx, const qd_selftest_check *c); /* after each check */
} qd_selftest_opts;

/* Runs all checks; *ret_failed counts the ones that failed. Errors: QD_E_UNSUPPORTED (no such device here), QD_E_USAGE
 * (no name of one), QD_E_CANCELED, QD_E_IO, QD_E_ROOM, QD_E_NO_MEMORY: what kept it from checking. A job that fails is
 * a failed check. */
QD_MUST_CHECK qd_code qd_selftest_run(const qd_selftest_opts *o, unsigned *ret_failed, qd_err *err);

/* The parts. Each fills c but for its name and time. */
void qd_selftest_numbers(qd_selftest_check *c);
QD_MUST_CHECK qd_code qd_selftest_amax(qd_dev *d, qd_cancel *cancel, qd_selftest_check *c, qd_err *err);
/* d against `reference`, over blocks whose magnitudes run through the bit patterns of each dtype. */
QD_MUST_CHECK qd_code qd_selftest_encode(qd_dev *d, qd_dev *reference, qd_cancel *cancel, qd_selftest_check *c,
                                         qd_err *err);
/* The operations of a forward pass beside those of the host: the same bits, products within a bound. */
QD_MUST_CHECK qd_code qd_selftest_ops(const qd_ops *ops, qd_cancel *cancel, qd_selftest_check *c, qd_err *err);
/* Jobs in dir, which is empty; calibrated: W4A4, else weights alone. The same output on one thread and on several, and
 * codes within the rounding error of the format. ops: the device of forward passes; NULL: this processor. */
QD_MUST_CHECK qd_code qd_selftest_job(const qd_selftest_opts *o, const qd_ops *ops, const char *dir, bool calibrated,
                                      qd_selftest_check *c, qd_err *err);

/* Counts a case; the first that fails leaves its sentence. */
void qd_selftest_case(qd_selftest_check *c, bool ok, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
