/* cancel.h -- the token that stops a job: set once from a signal handler or another thread, read in every tile. */
#ifndef QD_BASE_CANCEL_H
#define QD_BASE_CANCEL_H

#include "base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct qd_cancel {
    atomic_int signal; /* 0 = go on; else the signal number that asked (or 1); lock-free, so safe in a handler */
    atomic_int drain;  /* the same, by who can wait until what is begun is finished */
    atomic_int drains; /* the work going on now sees to that itself */
} qd_cancel;

static inline void qd_cancel_set(qd_cancel *c, int signal)
{
    atomic_store_explicit(&c->signal, signal == 0 ? 1 : signal, memory_order_relaxed);
}
/* Stop at the next point at which nothing begun is lost; work that knows no such point stops at once. */
static inline void qd_cancel_drain(qd_cancel *c, int signal)
{
    atomic_store_explicit(&c->drain, signal == 0 ? 1 : signal, memory_order_relaxed);
}
static inline int qd_cancel_drain_asked(qd_cancel *c) /* c may be NULL, also below */
{
    return c == NULL ? 0 : atomic_load_explicit(&c->drain, memory_order_relaxed);
}
/* Work that knows such points says so while it runs: qd_cancel_asked() then tells it of the other kind only. */
static inline void qd_cancel_drains(qd_cancel *c, bool knows)
{
    if (c != NULL) atomic_store_explicit(&c->drains, knows, memory_order_relaxed);
}
static inline int qd_cancel_asked(qd_cancel *c)
{
    if (c == NULL) return 0;
    int signal = atomic_load_explicit(&c->signal, memory_order_relaxed);
    if (signal != 0 || atomic_load_explicit(&c->drains, memory_order_relaxed)) return signal;
    return qd_cancel_drain_asked(c);
}

#endif
