/* cancel.h -- the token that stops a job: set once from a signal handler or another thread, read in every tile. */
#ifndef QD_BASE_CANCEL_H
#define QD_BASE_CANCEL_H

#include "base/err.h"

#include <stdatomic.h>
#include <stddef.h>

typedef struct qd_cancel {
    atomic_int signal; /* 0 = go on; else the signal number that asked (or 1); lock-free, so safe in a handler */
} qd_cancel;

static inline void qd_cancel_set(qd_cancel *c, int signal)
{
    atomic_store_explicit(&c->signal, signal == 0 ? 1 : signal, memory_order_relaxed);
}
static inline int qd_cancel_asked(qd_cancel *c) /* c may be NULL */
{
    return c == NULL ? 0 : atomic_load_explicit(&c->signal, memory_order_relaxed);
}

#endif
