/* cond.h -- condition variables that wait by the monotonic clock: a clock that is set wakes nobody. */
#ifndef QD_BASE_COND_H
#define QD_BASE_COND_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* A variable for qd_cond_wait_until(); pthread_cond_destroy() undoes it. */
void qd_cond_init(pthread_cond_t *c);
/* Waits, with the lock held, for a signal or until qd_mono_ns() is at_ns; false: that time has come. As with any
 * condition variable it may return early: look again at what is waited for. */
bool qd_cond_wait_until(pthread_cond_t *c, pthread_mutex_t *lock, uint64_t at_ns);
/* The same, until wait_ns from now. */
bool qd_cond_wait_for(pthread_cond_t *c, pthread_mutex_t *lock, uint64_t wait_ns);

#endif
