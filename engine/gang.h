/* gang.h -- one job on the ranks of a gang: what they add up, agree on and give each other, over gpu/comm.h.
 *
 * Every rank makes the same plan and calls these functions in the same order, also where it holds nothing. NULL is a
 * gang of one: the calls do nothing and succeed, so that who uses them need not ask.
 *
 * A rank that fails says so once (qd_gang_fail()): each call first asks whether all ranks are well, so the others' next
 * call returns that rank's error. Who is canceled, or finds the gang broken, aborts: the others get QD_E_GANG.
 *
 * Threads: all calls from the job's thread. Errors: those of gpu/comm.h, and those of ranks that failed. */
#ifndef QD_ENGINE_GANG_H
#define QD_ENGINE_GANG_H

#include "gpu/comm.h"

#include <stdbool.h>

typedef struct qd_gang {
    qd_comm *comm; /* the caller's, opened with the job's token */
    bool delivers; /* messages are under way (delivery.h): calls would meet them */
    bool over;     /* nothing more to say: a failure is known, or the other ranks are released */
    qd_err ended;  /* what a call found: every later one gives it again */
    /* Of this rank, for the report. */
    uint64_t n_calls, call_bytes; /* what it gave to collectives */
    uint64_t message_bytes;       /* what it sent or took in messages */
} qd_gang;

static inline uint32_t qd_gang_rank(const qd_gang *g)
{
    return g != NULL ? g->comm->opts.rank : 0;
}
static inline uint32_t qd_gang_size(const qd_gang *g)
{
    return g != NULL ? g->comm->opts.n_ranks : 1;
}

/* data [n] becomes the sum, or the largest, over ranks. Sums of floats depend on the gang's size, sums of integers and
 * maxima do not. Largest: magnitudes, none a NaN. */
QD_MUST_CHECK qd_code qd_gang_sum_f32(qd_gang *g, float *data, uint64_t n, qd_err *err);
QD_MUST_CHECK qd_code qd_gang_sum_i64(qd_gang *g, int64_t *data, uint64_t n, qd_err *err);
QD_MUST_CHECK qd_code qd_gang_max_f32(qd_gang *g, float *data, uint64_t n, qd_err *err);
/* Each byte of data is of one rank and zero on the others: all get all. */
QD_MUST_CHECK qd_code qd_gang_join(qd_gang *g, void *data, uint64_t n_bytes, qd_err *err);
/* data of rank 0 on every rank. */
QD_MUST_CHECK qd_code qd_gang_share(qd_gang *g, void *data, uint64_t n_bytes, qd_err *err);
/* The same of any rank; and a sum that rank `to` alone gets, whose data on the others stays as it was. */
QD_MUST_CHECK qd_code qd_gang_share_from(qd_gang *g, uint32_t from, void *data, uint64_t n_bytes, qd_err *err);
QD_MUST_CHECK qd_code qd_gang_sum_f32_to(qd_gang *g, uint32_t to, float *data, uint64_t n, qd_err *err);
/* ret_all [size][n_bytes]: part of each rank. */
QD_MUST_CHECK qd_code qd_gang_gather(qd_gang *g, const void *part, uint64_t n_bytes, void *ret_all, qd_err *err);
/* what: for words. QD_E_CHANGED where data differs between ranks. */
QD_MUST_CHECK qd_code qd_gang_same(qd_gang *g, const char *what, const void *data, uint64_t n_bytes, qd_err *err);

/* Several times a second while this rank computes; see qd_comm_look(). */
QD_MUST_CHECK qd_code qd_gang_look(qd_gang *g, qd_err *err);
/* The job ends here with err: the others are told. Once; a failure that they know already is not told again. */
void qd_gang_fail(qd_gang *g, const qd_err *err);

#endif
