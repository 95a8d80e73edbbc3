/* delivery.h -- finished units on their way from the members of a gang to rank 0, the one writer of all files.
 *
 * A member's sink and journal put what they are given into a queue; the thread that watches the pipeline sends it in
 * turns, a head and a batch, and rank 0's takes a turn of each member, writes what came, and journals units when they
 * are whole. So a unit is journaled by one process, after its bytes. Outside of the pipeline a member's sink drops what
 * it gets: then rank 0 has the same and writes it itself. */
#ifndef QD_ENGINE_DELIVERY_H
#define QD_ENGINE_DELIVERY_H

#include "engine/journal.h"
#include "engine/sched.h"

typedef struct qd_delivery qd_delivery;

/* Gives every unit that is not done to a rank, by cost: run->unit_rank. Copies go to rank 0, which would have to write
 * them all the same. The same on every rank whose run has the same units done. Errors: QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_delivery_assign(qd_run *run, qd_err *err);

/* Of a gang of more than one; run outlives it. Errors: QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_delivery_new(qd_run *run, qd_delivery **ret, qd_err *err);
void qd_delivery_free(qd_delivery *d); /* NULL is a no-op */
/* A member's sink and journal; they live as long as d. */
qd_sink *qd_delivery_sink(qd_delivery *d);
qd_journal *qd_delivery_journal(qd_delivery *d);

/* Around a run of the pipeline, on every rank. */
void qd_delivery_begin(qd_delivery *d);
void qd_delivery_end(qd_delivery *d);
/* A turn of the thread that watches the pipeline, of at most about 100 ms: waits, hands over or takes in what there is.
 * *ret_over: nothing is left to do here, or sched is stopped. journal: of rank 0. d NULL: only waits. Errors: those of
 * gpu/comm.h, of a member that failed, of the sink and the journal. */
QD_MUST_CHECK qd_code qd_delivery_turn(qd_delivery *d, qd_sched *sched, qd_journal *journal, qd_sched_seen *ret_seen,
                                       bool *ret_over, qd_err *err);

#endif
