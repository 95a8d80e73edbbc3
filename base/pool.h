/* pool.h -- a fixed set of worker threads that run the same function until it has no more work. */
#ifndef QD_BASE_POOL_H
#define QD_BASE_POOL_H

#include "base/err.h"

typedef void (*qd_pool_fn)(void *arg, unsigned worker); /* worker: 0..n_threads-1 */

/* Runs fn(arg, i) on n_threads threads and returns when all have returned. n_threads >= 1; fn synchronizes by itself.
 * Errors: QD_E_NO_MEMORY when threads cannot be started (those started are waited for: fn must then end by itself when
 * it finds no work; *abort_flag, if given, is set to 1 first). */
QD_MUST_CHECK qd_code qd_pool_run(unsigned n_threads, const char *name, qd_pool_fn fn, void *arg, _Atomic int *abort_flag, qd_err *err);
/* Processors this process may use (affinity and cgroup quota), at least 1. */
unsigned qd_cpu_count(void);

#endif
