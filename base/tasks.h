/* tasks.h -- n independent tasks over some threads, while the caller's thread tells how far they are. */
#ifndef QD_BASE_TASKS_H
#define QD_BASE_TASKS_H

#include "base/cancel.h"

#include <stdint.h>

typedef qd_code (*qd_task_fn)(void *arg, unsigned worker, uint64_t task, qd_err *err);

/* Who runs tasks. Not thread-safe: one run at a time. */
typedef struct qd_tasks {
    unsigned n_threads; /* at least 1: workers are 0 .. n_threads - 1 */
    qd_cancel *cancel;  /* may be NULL; asked before each task */
    /* From the caller's thread, many times a second and after the last task; n_ticks rises with every task ever done.
     */
    void (*tell)(void *ctx, uint64_t n_ticks); /* may be NULL */
    void *ctx;
    uint64_t n_ticks;
} qd_tasks;

/* Runs fn on 0 .. n - 1, begun in this order; returns when all are done. A single task runs in the caller's thread, and
 * so do all where t is NULL.
 * Errors: the first of a task, after which no other begins; QD_E_CANCELED; QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_tasks_run(qd_tasks *t, uint64_t n, qd_task_fn fn, void *arg, qd_err *err);
/* A piece of serial work is done: counts and tells it as a task, and asks for a cancel. t may be NULL.
 * Errors: QD_E_CANCELED. */
QD_MUST_CHECK qd_code qd_tasks_tick(qd_tasks *t, qd_err *err);

/* Workers that a run may have. */
static inline unsigned qd_tasks_workers(const qd_tasks *t)
{
    return t != NULL ? t->n_threads : 1;
}

#endif
