/* pool.h -- a fixed set of worker threads that run the same function until it has no more work. */
#ifndef QD_BASE_POOL_H
#define QD_BASE_POOL_H

#include "base/err.h"

typedef void (*qd_pool_fn)(void *arg, unsigned worker); /* worker: 0..n_threads-1 */

typedef struct qd_pool qd_pool;

/* Starts up to n_threads threads that run fn(arg, i) with all signals blocked; fewer where the system gives fewer, at
 * least one. Errors: QD_E_NO_MEMORY when not one could be started. */
QD_MUST_CHECK qd_code qd_pool_start(unsigned n_threads, const char *name, qd_pool_fn fn, void *arg, qd_pool **ret,
                                    qd_err *err);
/* Threads that were started. */
unsigned qd_pool_size(const qd_pool *pool);
/* Waits until every thread's fn has returned and frees the pool. NULL is a no-op. */
void qd_pool_join(qd_pool *pool);
/* Processors this process may use (affinity and cgroup quota), at least 1. */
unsigned qd_cpu_count(void);

#endif
